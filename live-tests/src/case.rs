//! Cases, and the runtimes that each runs on.

use std::{
    borrow::Cow,
    env,
    fs::OpenOptions,
    future::Future,
    io::Write as _,
    pin::Pin,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use libtest_mimic::{Arguments, Failed, Trial};

use crate::{Engine, microvm};

/// No case takes longer unless it says so; one that does is hung.
const CASE_TIMEOUT: Duration = Duration::from_secs(240);

/// The runtime that runs workspaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Runtime {
    /// The standard OCI runtime: the host's kernel.
    Runc,
    /// gVisor.
    Runsc,
    /// Emulated microVMs.
    Qemu,
}

impl Runtime {
    /// All.
    pub const ALL: [Self; 3] = [Self::Runc, Self::Runsc, Self::Qemu];

    /// Those of the Docker Engine.
    pub const DOCKER: [Self; 2] = [Self::Runc, Self::Runsc];

    /// The runtime's name, as the Docker Engine and the API say it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Runc => "runc",
            Self::Runsc => "runsc",
            Self::Qemu => "qemu",
        }
    }
}

type Run = Box<dyn Fn(Runtime) -> Pin<Box<dyn Future<Output = anyhow::Result<()>> + Send>> + Send + Sync>;

/// A behaviour that holds on every runtime.
pub struct Case {
    name: Cow<'static, str>,
    missing: Option<String>,
    timeout: Duration,
    run: Run,
}

impl Case {
    /// Names a case.
    pub fn new<F>(name: impl Into<Cow<'static, str>>, run: impl Fn(Runtime) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        Self {
            name: name.into(),
            missing: None,
            timeout: CASE_TIMEOUT,
            run: Box::new(move |runtime| Box::pin(run(runtime))),
        }
    }

    /// The same; skipped where something that the case needs is missing, which is said.
    #[must_use]
    pub fn skipped_because(self, missing: Option<String>) -> Self {
        Self { missing, ..self }
    }

    /// The same, with another time after which it is taken for hung.
    #[must_use]
    pub fn within(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// The case as a test on one runtime. Where the runtime is not there it is listed as ignored, with the reason in
    /// its kind.
    fn on(self, runtime: Runtime, missing: Option<&str>) -> Trial {
        let Self { name, missing: own, timeout, run } = self;
        let missing = missing.map(str::to_owned).or(own);
        let kind = missing.as_ref().map_or_else(String::new, |reason| format!("skipped: {reason}"));
        let name = format!("{}::{name}", runtime.name());
        let timed = name.clone();
        Trial::test(name, move || note_time(&timed, || block_on(timeout, run(runtime))))
            .with_ignored_flag(missing.is_some())
            .with_kind(kind)
    }
}

/// Runs the suites on Docker's runtimes, as the arguments of the process ask: the `main` of a test program.
pub fn run(suites: &[fn() -> Vec<Case>]) -> ExitCode {
    run_on(&Runtime::DOCKER, suites)
}

/// The same, on these runtimes.
pub fn run_on(runtimes: &[Runtime], suites: &[fn() -> Vec<Case>]) -> ExitCode {
    let arguments = Arguments::from_args();
    // Before anything speaks TLS. Installing it twice is the only way to fail.
    rustls::crypto::ring::default_provider().install_default().ok();
    let on = |runtime| {
        let missing = why_missing(runtime);
        let cases = suites.iter().flat_map(|suite| suite());
        cases.map(move |case| case.on(runtime, missing.as_deref())).collect::<Vec<_>>()
    };
    libtest_mimic::run(&arguments, runtimes.iter().copied().flat_map(on).collect()).exit_code()
}

fn why_missing(runtime: Runtime) -> Option<String> {
    if runtime == Runtime::Qemu {
        return microvm::why_missing();
    }
    let executor = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
    match executor.block_on(async { Engine::connect()?.has_runtime(runtime.name()).await }) {
        Ok(true) => None,
        Ok(false) => Some(format!("Docker has no runtime {}", runtime.name())),
        // Not a reason to skip: the cases fail and say what is wrong.
        Err(_) => None,
    }
}

/// Appends the time that a case took to the file that `LIVE_TIMES` names, where it names one: seconds, and the case.
fn note_time<T>(name: &str, run: impl FnOnce() -> T) -> T {
    let began = Instant::now();
    let result = run();
    if let Some(path) = env::var_os("LIVE_TIMES") {
        let line = format!("{:.1} {name}\n", began.elapsed().as_secs_f64());
        let file = OpenOptions::new().create(true).append(true).open(path);
        // A time that cannot be noted is missing in the file, and fails no case.
        file.and_then(|mut file| file.write_all(line.as_bytes())).ok();
    }
    result
}

fn block_on(timeout: Duration, run: Pin<Box<dyn Future<Output = anyhow::Result<()>> + Send>>) -> Result<(), Failed> {
    let executor = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    executor
        .block_on(async { tokio::time::timeout(timeout, run).await.context("the case hung")? })
        .map_err(|error| Failed::from(format!("{error:#}")))
}
