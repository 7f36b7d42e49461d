//! A machine goes to disk and comes back, in another process, and more than once.

use std::{fs, path::Path};

use anyhow::{Context as _, ensure};
use emergent_live_tests::Case;
use emergent_microvm::{MachineSpec, MachineState, RestoreError, SaveError};

use crate::harness::Machine;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("what_runs_goes_on_after_three_ways_through_the_disk", |_| three_times()),
        Case::new("two_forks_of_one_machine_are_two", |_| forks()),
        Case::new("what_is_damaged_or_foreign_is_refused", |_| refused()),
    ]
}

/// Counts in memory, keeps a file open that has no name any more, and serves on a port.
const PROGRAM: &str = r#"
import http.server, os, threading, time
count = 0
kept = open("/tmp/kept", "w+"); kept.write("kept"); kept.flush(); os.unlink("/tmp/kept")
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        kept.seek(0)
        body = f"{os.getpid()} {count} {kept.read()}".encode()
        self.send_response(200); self.send_header("Content-Length", str(len(body))); self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_): pass
def counting():
    global count
    while True:
        count += 1
        time.sleep(0.05)
threading.Thread(target=counting, daemon=True).start()
http.server.HTTPServer(("127.0.0.1", 8000), Answer).serve_forever()
"#;

const ASK: &str =
    "python3 -c 'import urllib.request as u; print(u.urlopen(\"http://127.0.0.1:8000\").read().decode())'";

async fn three_times() -> anyhow::Result<()> {
    let machine = Machine::boot().await?;
    machine
        .sh(&format!(
            "cat >/tmp/program.py <<'END'\n{PROGRAM}\nEND\nsetsid python3 /tmp/program.py >/tmp/log 2>&1 </dev/null &"
        ))
        .await?;
    machine
        .sh(&format!("for i in $(seq 100); do {ASK} 2>/dev/null && exit 0; sleep 0.1; done; cat /tmp/log; exit 1"))
        .await?;
    let boot = machine.guest.hello().await?.boot_id;
    let folder = tempfile::tempdir()?;
    let mut before = counted(&machine).await?;
    for round in 0..3 {
        machine.pass_through_disk(&folder.path().join(round.to_string())).await?;
        let after = counted(&machine).await?;
        ensure!(after.0 == before.0, "another process answers: {before:?}, {after:?}");
        ensure!(after.1 >= before.1, "it counts from {before:?} to {after:?}");
        ensure!(machine.guest.hello().await?.boot_id == boot, "the machine is still itself");
        before = after;
    }
    let seconds: i64 = machine.sh("date +%s").await?.parse()?;
    let now = i64::try_from(std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs())?;
    ensure!((now - seconds).abs() <= 5, "its clock says {seconds} at {now}");
    Ok(())
}

async fn counted(machine: &Machine) -> anyhow::Result<(String, u64)> {
    let text = machine.sh(ASK).await?;
    let [pid, count, "kept"] = text.split(' ').collect::<Vec<_>>()[..] else { anyhow::bail!("{text:?}") };
    Ok((pid.to_owned(), count.parse()?))
}

async fn forks() -> anyhow::Result<()> {
    let original = Machine::boot().await?;
    original.sh("echo common >/workspace/file; sync").await?;
    let folder = tempfile::tempdir()?;
    let saved = folder.path().join("saved");
    original.save(&saved).await?;
    // From the disks as they are while the original is frozen.
    let one = Machine::restored(&saved, &original).await?;
    let two = Machine::restored(&saved, &original).await?;
    original.vmm.thaw(&original.spec.dir).await?;
    let mut drawn = Vec::new();
    for (name, machine) in [("one", &one), ("two", &two), ("original", &original)] {
        machine.sh(&format!("echo {name} >>/workspace/file; sync")).await?;
        drawn.push(machine.sh("head -c 16 /dev/urandom | od -An -tx1").await?);
        drawn.push(machine.guest.hello().await?.boot_id);
    }
    for (name, machine) in [("one", &one), ("two", &two), ("original", &original)] {
        ensure!(machine.sh("cat /workspace/file").await? == format!("common\n{name}"));
    }
    let mut distinct = drawn.clone();
    distinct.sort();
    distinct.dedup();
    ensure!(distinct.len() == drawn.len(), "something was drawn twice: {drawn:?}");
    Ok(())
}

async fn refused() -> anyhow::Result<()> {
    let machine = Machine::boot().await?;
    let folder = tempfile::tempdir()?;
    let early = machine.vmm.save(&machine.spec.dir, folder.path()).await;
    ensure!(matches!(early, Err(SaveError::NotFrozen)), "{early:?}");
    let saved = folder.path().join("saved");
    machine.save(&saved).await?;
    machine.vmm.end(&machine.spec.dir).await?;

    let file = fs::File::options().write(true).open(saved.join("snapshot"))?;
    let length = file.metadata()?.len();
    file.set_len(length / 2)?;
    let cut = machine.vmm.restore(&machine.spec, &saved).await;
    ensure!(matches!(cut, Err(RestoreError::Damaged { .. })), "{cut:?}");
    // And where the manifest has been made to agree, the machine itself notices.
    change(&saved, &format!("{length}"), &format!("{}", length / 2))?;
    let agreed = machine.vmm.restore(&machine.spec, &saved).await;
    ensure!(matches!(agreed, Err(RestoreError::Damaged { .. })), "{agreed:?}");
    ensure!(matches!(machine.vmm.state(&machine.spec.dir).await?, MachineState::Gone(_)), "nothing is left running");

    let larger = MachineSpec { memory_mib: machine.spec.memory_mib * 2, ..machine.spec.clone() };
    let larger = machine.vmm.restore(&larger, &saved).await;
    ensure!(matches!(larger, Err(RestoreError::Foreign { .. })), "{larger:?}");
    change(&saved, "\"version\": \"", "\"version\": \"0.")?;
    let foreign = machine.vmm.restore(&machine.spec, &saved).await;
    ensure!(matches!(foreign, Err(RestoreError::Foreign { .. })), "{foreign:?}");
    fs::remove_file(saved.join("manifest.json"))?;
    let unfinished = machine.vmm.restore(&machine.spec, &saved).await;
    ensure!(matches!(unfinished, Err(RestoreError::Damaged { .. })), "{unfinished:?}");
    Ok(())
}

fn change(saved: &Path, from: &str, to: &str) -> anyhow::Result<()> {
    let manifest = saved.join("manifest.json");
    let text = fs::read_to_string(&manifest)?;
    ensure!(text.contains(from), "{text}");
    fs::write(&manifest, text.replace(from, to)).context("changing the manifest")
}
