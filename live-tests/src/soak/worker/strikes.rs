//! Faults that a worker makes in its own workspaces, behind the server's back: the worker knows their exact meaning.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use bytes::Bytes;
use futures::stream;
use rand::RngExt as _;
use reqwest::{Body, Method};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tokio::time::sleep;

use super::{Judged, Worker};
use crate::{
    Engine,
    soak::{
        answer::Answer,
        fault::Fault,
        footprint::processes,
        phase::{Op, Phase, Phases},
        workspace::KnownWorkspace,
    },
};

/// The time that the server may take to notice an event that the engine reports at once.
const NOTICED: Duration = Duration::from_secs(30);
/// The time that the end of a sandbox may take to be known to all.
const LINGERS: Duration = Duration::from_secs(15);

// === impl Worker ===

impl Worker {
    pub(super) async fn strike_kill(&mut self, known: &mut KnownWorkspace) {
        let engine = self.testbed.engine.clone();
        self.strike(known, Fault::ContainerKilled, Phase::Broken, engine.kill(&known.id.clone())).await;
    }

    pub(super) async fn strike_remove(&mut self, known: &mut KnownWorkspace) {
        let engine = self.testbed.engine.clone();
        self.strike(known, Fault::ContainerRemoved, Phase::Lost, engine.remove(&known.id.clone())).await;
    }

    /// Kills the process through which the engine watches over the container. Docker then ends the container itself.
    pub(super) async fn strike_shim(&mut self, known: &mut KnownWorkspace) {
        let (engine, id) = (self.testbed.engine.clone(), known.id.clone());
        let kill = async move { kill_shim(&engine, &id).await };
        self.strike(known, Fault::ShimKilled, Phase::Broken, kill).await;
    }

    pub(super) async fn strike_pause(&mut self, known: &mut KnownWorkspace) {
        let engine = self.testbed.engine.clone();
        self.strike(known, Fault::PausedBehind, Phase::Paused, engine.pause(&known.id.clone())).await;
    }

    pub(super) async fn strike_unpause(&mut self, known: &mut KnownWorkspace) {
        let engine = self.testbed.engine.clone();
        self.strike(known, Fault::UnpausedBehind, Phase::Ready, engine.unpause(&known.id.clone())).await;
    }

    /// Does something to the container. Then either a call meets the change, or the server must show it by itself.
    async fn strike(
        &mut self,
        known: &mut KnownWorkspace,
        fault: Fault,
        becomes: Phase,
        act: impl Future<Output = anyhow::Result<()>>,
    ) {
        let began = Instant::now();
        known.struck = Some(fault);
        known.sandbox_may_have_ended();
        let acted = act.await;
        known.phases.or(becomes);
        if acted.is_ok() {
            self.testbed.report.struck(fault);
        }
        if becomes == Phase::Broken {
            known.lingers = Some((fault, Instant::now() + LINGERS));
        }
        let called = acted.is_ok() && self.random.random_bool(0.5);
        if called {
            self.call(known, "bash", json!({ "command": "true" })).await;
        }
        if (called && becomes == Phase::Broken) || acted.is_err() {
            // With a call it may have been started again. And with the engine down or the workspace expired, nobody
            // knows what has happened.
            self.await_calm(known).await;
            known.phases.or(Phase::Broken);
            known.lingers = Some((fault, Instant::now() + LINGERS));
        } else {
            self.await_phase(known, becomes, began).await;
        }
        known.struck = None;
        if acted.is_ok() {
            self.testbed.report.seen(fault, &format!("then {}", known.phases));
            self.testbed.report.recovered(fault, began.elapsed());
        }
    }

    /// Waits until no fault that strikes everyone is at work.
    async fn await_calm(&mut self, known: &mut KnownWorkspace) {
        while !self.testbed.fault_log.since(self.server, Instant::now()).is_empty() {
            sleep(Duration::from_millis(100)).await;
        }
        let (before, becomes) = (known.phases.clone(), known.struck);
        self.settle(known).await;
        if becomes.is_some() {
            // What it shows may be a moment old.
            known.phases = before;
        }
    }

    /// Waits until the server shows the change that was made behind its back.
    async fn await_phase(&mut self, known: &mut KnownWorkspace, becomes: Phase, began: Instant) {
        let mut deadline = Instant::now() + NOTICED;
        loop {
            let asked = Instant::now();
            let answer = Answer::to(self.request(Method::GET, known, "")).await;
            let around = self.circumstances(known, asked);
            if !around.faults.is_empty() && around.faults.iter().any(|fault| Some(*fault) != known.struck) {
                deadline = Instant::now() + NOTICED;
            }
            let engine_died = self.testbed.fault_log.since(self.server, began).contains(&Fault::EngineKilled);
            let shown = Phase::shown(&answer.json()).filter(|_| answer.is_success());
            let as_expected = |phase| match phase {
                Phase::Destroyed => around.expiring,
                Phase::Broken => becomes == Phase::Broken || (engine_died && becomes != Phase::Lost),
                phase => phase == becomes,
            };
            if let Some(phase) = shown.filter(|phase| as_expected(*phase)) {
                known.phases = Phases::only(phase);
                known.looked = Instant::now();
                return;
            }
            if Instant::now() > deadline {
                let what =
                    format!("it should be noticed within {NOTICED:?} that it is {becomes:?}; got {}", answer.shown());
                self.finding(known, "look", &what);
                return self.settle(known).await;
            }
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// Asks for more memory than the workspace may have. Under runc the process ends, under gVisor the whole sandbox.
    pub(super) async fn strike_memory(&mut self, known: &mut KnownWorkspace) {
        let began = Instant::now();
        known.lingers = Some((Fault::OutOfMemory, began + LINGERS));
        self.testbed.report.struck(Fault::OutOfMemory);
        let asked = self.call(known, "bash", json!({ "command": "python3 -c 'x = bytearray(1 << 30)'" })).await;
        let saw = match asked {
            Judged::Done(answer) => {
                let result = answer.json();
                if result["exit_code"] == 0 {
                    self.finding(known, "bash", &format!("four times its memory was granted: {}", answer.shown()));
                }
                format!("outcome {}", result["outcome"].as_str().unwrap_or("none"))
            }
            Judged::Refused | Judged::Open | Judged::Wrong => format!("then {}", known.phases),
        };
        self.testbed.report.seen(Fault::OutOfMemory, &saw);
        // It works again, with its files: the next call sees to it, whatever is left.
        self.call(known, "bash", json!({ "command": "true" })).await;
        self.testbed.report.recovered(Fault::OutOfMemory, began.elapsed());
    }

    /// Breaks an upload off; the file must stay as it was.
    pub(super) async fn strike_upload(&mut self, known: &mut KnownWorkspace) {
        let Some(path) = known.contents.files.paths().next().map(str::to_owned) else { return };
        let from = Instant::now();
        let piece = Ok(Bytes::from(vec![b'x'; 100_000]));
        let broken = Err(std::io::Error::other("the client goes away"));
        let body = Body::wrap_stream(stream::iter([piece, broken]));
        let request = self.request(Method::PUT, known, &format!("/files/content?path={path}")).body(body);
        let answer = Answer::to(request).await;
        self.testbed.report.struck(Fault::UploadCut);
        if answer.is_success() {
            self.finding(known, "upload", "half an upload was taken for a whole one");
        }
        let around = self.circumstances(known, from);
        self.count("upload cut", &answer, &around.faults, from);
        let download = self.request(Method::GET, known, &format!("/files/stat?path={path}"));
        self.ask(known, Op::Call, "stat", download).await;
        self.download(known, &path).await;
        self.testbed.report.seen(Fault::UploadCut, "the old file");
    }
}

/// Ends the shim of a workspace's container with SIGKILL.
async fn kill_shim(engine: &Engine, workspace: &str) -> anyhow::Result<()> {
    let container = engine.inspect(workspace).await?.id.context("the container has no id")?;
    let all = processes()?;
    let mut shims = all.iter().filter(|(_, process)| process.command.contains("containerd-shim"));
    let shim = shims.find(|(_, process)| process.command.contains(&container)).context("the container has no shim")?;
    let shim = i32::try_from(*shim.0).ok().and_then(Pid::from_raw).context("the shim's process id")?;
    kill_process(shim, Signal::KILL).context("killing the shim")
}
