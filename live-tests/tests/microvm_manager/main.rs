//! The manager of microVMs as its users have it: the release program, its REST API, and machines that really boot.
//!
//! `LIVE_MICROVM` names a directory with `kernels/` and `rootfs/` in them, as `emergent kernel import` and `emergent
//! image build` make them. Without it, or without QEMU, the cases are listed as ignored, with the reason.

mod client;
mod crashes;
mod lifecycle;
mod limits;
mod provider;
mod service;

use std::{future::Future, path::Path, pin::Pin, process::ExitCode, time::Duration};

use anyhow::Context as _;
use libtest_mimic::{Arguments, Failed, Trial};

/// No case takes longer; one that does is hung.
const CASE_TIMEOUT: Duration = Duration::from_secs(400);

type Run = Box<dyn FnOnce() -> Pin<Box<dyn Future<Output = anyhow::Result<()>> + Send>> + Send>;

/// A behaviour.
struct Case {
    name: &'static str,
    run: Run,
}

impl Case {
    fn new<F>(name: &'static str, run: impl FnOnce() -> F + Send + 'static) -> Self
    where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        Self { name, run: Box::new(move || Box::pin(run())) }
    }
}

fn main() -> ExitCode {
    // Before anything speaks TLS. Installing it twice is the only way to fail.
    rustls::crypto::ring::default_provider().install_default().ok();
    let missing = why_missing();
    let suites = [lifecycle::cases, crashes::cases, limits::cases, client::cases, provider::cases];
    let trials = suites.iter().flat_map(|suite| suite()).map(|case| {
        let Case { name, run } = case;
        let kind = missing.as_deref().map_or_else(String::new, |reason| format!("skipped: {reason}"));
        Trial::test(name, move || block_on(run())).with_ignored_flag(missing.is_some()).with_kind(kind)
    });
    libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit_code()
}

fn why_missing() -> Option<String> {
    let Some(images) = service::images() else { return Some("LIVE_MICROVM names no kernel and root".to_owned()) };
    let needed = ["kernels/default-kernel.json", "rootfs/default-rootfs.ext4"];
    if let Some(file) = needed.iter().find(|file| !images.join(file).is_file()) {
        return Some(format!("{} is not there", images.join(file).display()));
    }
    let qemu = format!("qemu-system-{}", std::env::consts::ARCH);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).any(|directory: std::path::PathBuf| is_program(&directory.join(&qemu)));
    (!found).then(|| format!("{qemu} is not installed"))
}

fn is_program(path: &Path) -> bool {
    path.is_file()
}

fn block_on(run: Pin<Box<dyn Future<Output = anyhow::Result<()>> + Send>>) -> Result<(), Failed> {
    let executor = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    executor
        .block_on(async { tokio::time::timeout(CASE_TIMEOUT, run).await.context("the case hung")? })
        .map_err(|error| Failed::from(format!("{error:#}")))
}
