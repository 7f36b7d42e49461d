//! Cases, and the runtimes that each runs on.

use std::{borrow::Cow, future::Future, pin::Pin, process::ExitCode, time::Duration};

use anyhow::Context as _;
use libtest_mimic::{Arguments, Failed, Trial};

use crate::Engine;

/// No case takes longer; one that does is hung.
const CASE_TIMEOUT: Duration = Duration::from_secs(240);

/// An OCI runtime that workspaces run on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Runtime {
    /// The standard one: the host's kernel.
    Runc,
    /// gVisor.
    Runsc,
}

impl Runtime {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Runc, Self::Runsc];

    /// Its name in the Docker Engine.
    pub fn name(self) -> &'static str {
        match self {
            Self::Runc => "runc",
            Self::Runsc => "runsc",
        }
    }
}

type Run = Box<dyn Fn(Runtime) -> Pin<Box<dyn Future<Output = anyhow::Result<()>> + Send>> + Send + Sync>;

/// A behaviour that holds on every runtime.
pub struct Case {
    name: Cow<'static, str>,
    missing: Option<String>,
    run: Run,
}

impl Case {
    /// Names a case.
    pub fn new<F>(name: impl Into<Cow<'static, str>>, run: impl Fn(Runtime) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        Self { name: name.into(), missing: None, run: Box::new(move |runtime| Box::pin(run(runtime))) }
    }

    /// The same; skipped where something that it needs is missing, which is said.
    #[must_use]
    pub fn skipped_because(self, missing: Option<String>) -> Self {
        Self { missing, ..self }
    }

    /// The case as a test on one runtime. Where the runtime is not there it is listed as ignored, with the reason in
    /// its kind.
    fn on(self, runtime: Runtime, missing: Option<&str>) -> Trial {
        let Self { name, missing: own, run } = self;
        let missing = missing.map(str::to_owned).or(own);
        let kind = missing.as_ref().map_or_else(String::new, |reason| format!("skipped: {reason}"));
        Trial::test(format!("{}::{name}", runtime.name()), move || block_on(run(runtime)))
            .with_ignored_flag(missing.is_some())
            .with_kind(kind)
    }
}

/// Runs the suites on every runtime, as the arguments of the process ask: the `main` of a test program.
pub fn run(suites: &[fn() -> Vec<Case>]) -> ExitCode {
    run_on(&Runtime::ALL, suites)
}

/// The same, on these runtimes: for what does not depend on them.
pub fn run_on(runtimes: &[Runtime], suites: &[fn() -> Vec<Case>]) -> ExitCode {
    let arguments = Arguments::from_args();
    let on = |runtime| {
        let missing = why_missing(runtime);
        let cases = suites.iter().flat_map(|suite| suite());
        cases.map(move |case| case.on(runtime, missing.as_deref())).collect::<Vec<_>>()
    };
    libtest_mimic::run(&arguments, runtimes.iter().copied().flat_map(on).collect()).exit_code()
}

fn why_missing(runtime: Runtime) -> Option<String> {
    let executor = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
    match executor.block_on(async { Engine::connect()?.has_runtime(runtime.name()).await }) {
        Ok(true) => None,
        Ok(false) => Some(format!("Docker has no runtime {}", runtime.name())),
        // Not a reason to skip: the cases fail and say what is wrong.
        Err(_) => None,
    }
}

fn block_on(run: Pin<Box<dyn Future<Output = anyhow::Result<()>> + Send>>) -> Result<(), Failed> {
    let executor = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    executor
        .block_on(async { tokio::time::timeout(CASE_TIMEOUT, run).await.context("the case hung")? })
        .map_err(|error| Failed::from(format!("{error:#}")))
}
