//! The installation of packages: the operator's settings that it has, how it is given up, and how it tells why it
//! failed.

use std::{
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use emergent_live_tests::{
    Case, Runtime, Server, ServerOptions,
    mcp::{SERVERS, host, image},
    server::program,
    until,
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tempfile::TempDir;

use crate::ready::emergent;

/// The certificate of an authority that signs nothing.
const AUTHORITY: &str = "-----BEGIN CERTIFICATE-----
MIIBkzCCATmgAwIBAgIUV8ZphGMqB7ITFVPVeSjMBNbOHH4wCgYIKoZIzj0EAwIw
HjEcMBoGA1UEAwwTQSBwcml2YXRlIGF1dGhvcml0eTAgFw0yNjExMjkxOTE2MDla
GA8yMTI2MTEwNTE5MTYwOVowHjEcMBoGA1UEAwwTQSBwcml2YXRlIGF1dGhvcml0
eTBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABBtPwwm18aRj71akbZHZnj1m+VZ1
eCUP50cpJMwXGdtphXfKo8UqdL8dtzU7tvFxdjtYKJPeFr4fVv/XjhexU/WjUzBR
MB0GA1UdDgQWBBQuXb0uEQvJ63nbYl3+n8tQ/Jp4oDAfBgNVHSMEGDAWgBQuXb0u
EQvJ63nbYl3+n8tQ/Jp4oDAPBgNVHRMBAf8EBTADAQH/MAoGCCqGSM49BAMCA0gA
MEUCIA0EMvudWlRAmYAdI5TZdYM2wxzR/1/sMA3jJ9iUE2E2AiEA2dhzMZ3F1Hgb
nXIkwzssvqxRIAn2pXhj7ZkV5FCH92A=
-----END CERTIFICATE-----
";
/// An address in each sandbox where nobody listens.
const NOBODY: &str = "http://127.0.0.1:9";
/// How long an installer may take to begin on a busy machine.
const BEGINS: Duration = Duration::from_secs(90);
/// How long what is given up may take to end: less than calls under way get when a server stops.
const AT_ONCE: Duration = Duration::from_secs(9);
/// Prints the environment of the installer that is under way, and the authorities that it trusts.
const LOOK: &str = r#"pid=$(pgrep -f 'python[0-9.]* venv/bin/pip install' | head -n 1)
[ -n "$pid" ] || exit 1
tr '\0' '\n' < "/proc/$pid/environ"
cat "$(tr '\0' '\n' < "/proc/$pid/environ" | sed -n 's/^PIP_CERT=//p')""#;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("mcp::an_installation_has_what_workspaces_have_and_is_given_up_at_once", given_up),
        Case::new("mcp::a_hosted_server_has_what_workspaces_have", has_defaults),
        Case::new("mcp::an_installation_that_fails_tells_its_last_lines", fails),
        Case::new("mcp::an_interrupted_registration_says_that_it_goes_on", interrupted),
    ]
}

/// A server whose packages come from an index that nobody serves, which is asked again so often; and the folder with
/// its authority's certificate.
async fn without_index(runtime: Runtime, retries: u32) -> anyhow::Result<(Server, TempDir)> {
    let folder = tempfile::tempdir()?;
    let authority = folder.path().join("authority.pem");
    std::fs::write(&authority, AUTHORITY)?;
    let environment = format!("PIP_INDEX_URL={NOBODY}/simple,PIP_RETRIES={retries}");
    let options = ServerOptions::on(runtime)
        .with("WORKSPACE_DEFAULT_IMAGE", image()?)
        .with("WORKSPACE_ENVIRONMENT", environment)
        .with("WORKSPACE_CA_FILE", authority.to_string_lossy());
    Ok((Server::start(options).await?, folder))
}

/// Waits until a server's installer is under way; returns its environment and the authorities that it trusts.
async fn installer(id: &str) -> anyhow::Result<String> {
    let container = format!("emergent-{id}");
    until("the installer is under way", BEGINS, || async {
        let arguments = ["exec", "--user", "1000:1000", &container, "sh", "-c", LOOK];
        let looked = Command::new("docker").args(arguments).output()?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok(if looked.status.success() { Ok(text(&looked.stdout)) } else { Err(text(&looked.stderr)) })
    })
    .await
}

async fn has_defaults(runtime: Runtime) -> anyhow::Result<()> {
    let (server, _folder) = without_index(runtime, 0).await?;
    let look = "(env; cat \"$SSL_CERT_FILE\") > /workspace/seen; exec fixture";
    host(&server.api, json!({ "cmd": ["sh", "-c", look], "environment": { "PIP_RETRIES": "7" } })).await?;
    let files = format!("{SERVERS}/fixture/files/content");
    let asked = server.api.request(reqwest::Method::GET, &files).query(&[("path", "/workspace/seen")]);
    let seen = asked.send().await?.error_for_status()?.text().await?;
    ensure!(seen.contains(&format!("PIP_INDEX_URL={NOBODY}/simple")) && seen.contains("PIP_RETRIES=7"), "{seen}");
    ensure!(seen.contains(AUTHORITY.trim()), "the operator's authority is not trusted: {seen}");
    Ok(())
}

async fn given_up(runtime: Runtime) -> anyhow::Result<()> {
    let (mut server, _folder) = without_index(runtime, 1000).await?;
    let package = |name: &str| json!({ "name": name, "package": { "registry": "pypi", "requirement": "not-there" } });
    let at_once = format!("{SERVERS}?wait_seconds=0");
    let made = server.api.post(&at_once, package("first")).await?.success()?;
    let first = made["id"].as_str().context("no id")?.to_owned();
    let has = installer(&first).await?;
    ensure!(has.contains(&format!("PIP_INDEX_URL={NOBODY}/simple")), "{has}");
    ensure!(has.contains(AUTHORITY), "the operator's authority is not trusted: {has}");
    let shown = server.api.get(&format!("{SERVERS}/first")).await?.success()?;
    ensure!(shown["state"] == "starting" && shown["message"] == "installing not-there", "{shown}");

    let began = Instant::now();
    server.api.delete(&format!("{SERVERS}/first")).await?.success()?;
    ensure!(began.elapsed() < AT_ONCE, "the deletion took {:?}", began.elapsed());
    let left = server.engine.resources_of(&first).await?;
    ensure!(left.is_empty(), "{left:?}");

    let api = server.api.clone();
    let waiting =
        tokio::spawn(async move { api.post(&format!("{SERVERS}?wait_seconds=600"), package("second")).await });
    let second = until("it is registered", BEGINS, || async {
        let items = server.api.list(SERVERS).await?;
        let id = items.first().and_then(|item| item["id"].as_str()).map(str::to_owned);
        Ok(id.ok_or_else(|| "no server".to_owned()))
    })
    .await?;
    installer(&second).await?;
    server.signal(Signal::TERM)?;
    server.await_exit(AT_ONCE).await?;
    let answered = waiting.await??.success()?;
    ensure!(answered["state"] == "starting", "{answered}");
    // The next start begins anew.
    server.respawn(|_| {})?;
    server.await_ready().await?;
    installer(&second).await?;
    server.api.delete(&format!("{SERVERS}/second")).await?.success()?;
    Ok(())
}

async fn fails(runtime: Runtime) -> anyhow::Result<()> {
    let (server, _folder) = without_index(runtime, 0).await?;
    let run = |arguments: &[&str]| emergent(&server, arguments);
    let (ok, _, said) = run(&["mcp", "add", "none", "--pypi", "not-there"])?;
    ensure!(!ok && said.contains("none is failed (its package could not be installed: "), "{said}");
    ensure!(said.contains("\n  ERROR: No matching distribution found for not-there"), "{said}");
    let (ok, _, called) = run(&["mcp", "call", "none", "echo"])?;
    ensure!(!ok && called.contains("\n  ERROR: No matching distribution found for not-there"), "{called}");
    for said in [said, called] {
        ensure!(!said.contains('\u{fffd}'), "a line break is shown as something else: {said}");
    }
    // A program that fetches itself says soon what it fails for.
    let registry = format!("npm_config_registry={NOBODY}");
    let (ok, _, said) = run(&["mcp", "add", "npx", "--env", &registry, "--", "npx", "--yes", "not-there"])?;
    ensure!(
        !ok && said.contains("npx is failing (exited with 1 before it was ready") && said.contains("ECONNREFUSED"),
        "{said}"
    );
    let (ok, _, said) = run(&["mcp", "rm", "none", "npx"])?;
    ensure!(ok, "{said}");
    Ok(())
}

async fn interrupted(runtime: Runtime) -> anyhow::Result<()> {
    let (server, _folder) = without_index(runtime, 1000).await?;
    let adding = Command::new(program("emergent")?)
        .args(["mcp", "add", "late", "--pypi", "not-there"])
        .env("EMERGENT_SERVER", server.api.base())
        .env("EMERGENT_TOKEN", server.api.token())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("starting the command line")?;
    until("it is registered", BEGINS, || async {
        let items = server.api.list(SERVERS).await?;
        Ok(if items.is_empty() { Err("no server".to_owned()) } else { Ok(()) })
    })
    .await?;
    let pid = i32::try_from(adding.id()).ok().and_then(Pid::from_raw).context("its process id")?;
    kill_process(pid, Signal::INT).context("interrupting it")?;
    let ended = adding.wait_with_output().context("waiting for it")?;
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    ensure!(ended.status.code() == Some(130), "{}: {said}", ended.status);
    ensure!(said.contains("late goes on being installed") && said.contains("`emergent mcp rm late`"), "{said}");
    let (ok, listed, _) = emergent(&server, &["mcp", "ls"])?;
    ensure!(ok && listed.contains("late") && listed.contains("starting"), "{listed}");
    server.api.delete(&format!("{SERVERS}/late")).await?.success()?;
    Ok(())
}
