//! The command line, as a person uses it.

use std::{
    process::{Output, Stdio},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use emergent_live_tests::{
    Case, Runtime, Server, ServerOptions,
    api::{SNAPSHOTS, WORKSPACES},
    server::program,
    until,
};
use rustix::process::{Pid, Signal, kill_process};
use tokio::{net::TcpListener, process::Command};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("logs_tell_of_a_lost_execution", lost_execution),
        Case::new("ctrl_c_leaves_no_unfinished_workspace", interrupted_create),
        Case::new("files_are_listed_moved_and_removed", files),
        Case::new("snapshots_are_named_as_workspaces_are", named_snapshots),
        Case::new("rm_removes_what_exists_and_names_what_does_not", remove_some),
        Case::new("ctrl_c_in_exec_says_what_became_of_the_command", interrupted_exec),
        Case::new("a_refused_command_names_the_one_that_was_meant", advice),
        Case::new("a_create_that_failed_is_listed_with_its_reason_until_it_is_removed", failed_create),
        Case::new("a_command_that_ran_out_of_memory_is_told_the_limit", out_of_memory),
        Case::new("all_workspaces_go_only_when_somebody_says_so", remove_all),
    ]
}

fn emergent(server: &Server, arguments: &[&str]) -> anyhow::Result<Command> {
    let mut command = Command::new(program("emergent")?);
    command.args(arguments).env("EMERGENT_SERVER", server.api.base()).env("EMERGENT_TOKEN", server.api.token());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    Ok(command)
}

async fn run(server: &Server, arguments: &[&str]) -> anyhow::Result<Output> {
    emergent(server, arguments)?.output().await.context("running emergent")
}

/// Returns the output of a command that must succeed.
async fn done(server: &Server, arguments: &[&str]) -> anyhow::Result<String> {
    let output = run(server, arguments).await?;
    ensure!(output.status.success(), "{arguments:?}: {output:?}");
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Returns the message of a command that must fail.
async fn refused(server: &Server, arguments: &[&str], status: i32) -> anyhow::Result<String> {
    let output = run(server, arguments).await?;
    ensure!(output.status.code() == Some(status), "{arguments:?}: {output:?}");
    Ok(String::from_utf8_lossy(&output.stderr).into_owned())
}

async fn lost_execution(runtime: Runtime) -> anyhow::Result<()> {
    let server = Server::on(runtime).await?;
    let id = done(&server, &["workspace", "create", "--name", "first"]).await?;
    let script = "echo before; exec sleep 1000";
    let execution = done(&server, &["workspace", "exec", "first", "--detach", "-c", script]).await?;
    until("it has written", Duration::from_secs(20), || async {
        let output = done(&server, &["workspace", "logs", "first", &execution]).await?;
        Ok(if output == "before" { Ok(()) } else { Err(output) })
    })
    .await?;
    server.engine.kill(&id).await?;
    let said = until("the loss is told", Duration::from_secs(60), || async {
        let output = run(&server, &["workspace", "logs", "first", &execution]).await?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        Ok(if said.contains("was lost") { Ok((output, said)) } else { Err(format!("{output:?}")) })
    });
    let (output, said) = said.await?;
    ensure!(output.status.code() == Some(1) && output.stdout == b"before\n", "{output:?}");
    ensure!(said.contains("7 bytes of its output are kept"), "{said}");
    Ok(())
}

async fn interrupted_create(runtime: Runtime) -> anyhow::Result<()> {
    // A registry that never answers keeps the image, and the workspace, from getting ready.
    let registry = TcpListener::bind("127.0.0.1:0").await?;
    let address = registry.local_addr()?.to_string();
    let image = format!("{address}/never:1");
    let server = Server::start(ServerOptions::on(runtime).with("WORKSPACE_PRIVATE_REGISTRIES", address)).await?;
    let mut create = emergent(&server, &["workspace", "create", "--image", &image])?.spawn()?;
    let id = until("it is being made", Duration::from_secs(30), || async {
        let listed = server.api.list(WORKSPACES).await?;
        Ok(listed
            .first()
            .and_then(|workspace| workspace["id"].as_str().map(str::to_owned))
            .ok_or_else(|| "nothing".to_owned()))
    })
    .await?;
    ensure!(create.try_wait()?.is_none(), "it has ended");
    let pid = create.id().and_then(|id| Pid::from_raw(id.try_into().ok()?)).context("its process id")?;
    kill_process(pid, Signal::INT)?;
    let output = create.wait_with_output().await?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(130) && said.contains(&id), "{output:?}");
    ensure!(server.api.list(WORKSPACES).await?.is_empty(), "it is still there");
    Ok(())
}

async fn files(runtime: Runtime) -> anyhow::Result<()> {
    let server = Server::on(runtime).await?;
    let refusal = refused(&server, &["workspace", "create", "--name", "a:b"], 1).await?;
    ensure!(refusal.contains("no / and no :"), "{refusal}");
    let refusal = refused(&server, &["workspace", "create", "--disk", "50M"], 1).await?;
    ensure!(refusal.contains("50M") && refusal.contains("64M"), "{refusal}");
    done(&server, &["workspace", "create", "--name", "first"]).await?;
    let command = |verb: &'static str| ["workspace", "files", verb];
    done(&server, &[&command("mkdir")[..], &["first", "a/b"]].concat()).await?;
    done(&server, &["workspace", "exec", "first", "-c", "echo hello >a/b/c"]).await?;
    done(&server, &[&command("mv")[..], &["first", "a/b/c", "d"]].concat()).await?;
    let listed = done(&server, &[&command("ls")[..], &["first"]].concat()).await?;
    ensure!(listed.contains("/workspace/a") && listed.contains("/workspace/d"), "{listed}");
    let refusal = refused(&server, &[&command("rm")[..], &["first", "a"]].concat(), 1).await?;
    ensure!(refusal.contains("emergent workspace files rm -r first 'a'"), "{refusal}");
    done(&server, &[&command("rm")[..], &["-r", "first", "a", "d"]].concat()).await?;
    let listed = done(&server, &[&command("ls")[..], &["first"]].concat()).await?;
    ensure!(!listed.contains("/workspace/"), "{listed}");
    let refusal = refused(&server, &["workspace", "set", "first", "--disk", "20G"], 1).await?;
    ensure!(refusal.contains("emergent workspace create --snapshot"), "{refusal}");
    Ok(())
}

async fn named_snapshots(runtime: Runtime) -> anyhow::Result<()> {
    let server = Server::on(runtime).await?;
    done(&server, &["workspace", "create", "--name", "first"]).await?;
    for _ in 0..2 {
        done(&server, &["snapshot", "create", "first", "--name", "nightly"]).await?;
    }
    let ids = done(&server, &["snapshot", "ls", "--quiet"]).await?;
    let ids: Vec<_> = ids.lines().collect();
    let refusal = refused(&server, &["snapshot", "rm", "nightly"], 1).await?;
    ensure!(ids.len() == 2 && ids.iter().all(|id| refusal.contains(id)), "{refusal}");
    done(&server, &["snapshot", "rm", ids[0]]).await?;
    done(&server, &["workspace", "create", "--name", "copy", "--snapshot", "nightly"]).await?;
    done(&server, &["snapshot", "rm", "nightly"]).await?;
    ensure!(server.api.list(SNAPSHOTS).await?.is_empty(), "snapshots are left");
    Ok(())
}

async fn remove_all(runtime: Runtime) -> anyhow::Result<()> {
    let server = Server::on(runtime).await?;
    let id = done(&server, &["workspace", "create"]).await?;
    let refusal = refused(&server, &["workspace", "rm", "--all"], 2).await?;
    ensure!(refusal.contains(&id) && refusal.contains("--yes"), "{refusal}");
    ensure!(server.api.list(WORKSPACES).await?.len() == 1, "it was removed");
    done(&server, &["workspace", "rm", "--all", "--yes"]).await?;
    ensure!(server.api.list(WORKSPACES).await?.is_empty(), "it is still there");
    Ok(())
}

async fn remove_some(runtime: Runtime) -> anyhow::Result<()> {
    let server = Server::on(runtime).await?;
    let first = done(&server, &["workspace", "create", "--name", "first"]).await?;
    let second = done(&server, &["workspace", "create", "--name", "second"]).await?;
    let output = run(&server, &["workspace", "rm", "first", "wrong", &second]).await?;
    let (printed, said) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.code() == Some(1), "{output:?}");
    ensure!(said.contains("\"wrong\"") && said.contains("emergent workspace ls"), "{said}");
    ensure!(printed == format!("{first} removed\n{second} removed\n"), "{printed}");
    ensure!(server.api.list(WORKSPACES).await?.is_empty(), "some are still there");
    Ok(())
}

async fn interrupted_exec(runtime: Runtime) -> anyhow::Result<()> {
    let server = Server::on(runtime).await?;
    let id = done(&server, &["workspace", "create", "--name", "first"]).await?;
    let nothing = refused(&server, &["workspace", "logs", "first", "-f"], 1).await?;
    ensure!(nothing.contains("emergent workspace exec first --detach"), "{nothing}");
    let script = "echo before; exec sleep 1000";
    let exec = emergent(&server, &["workspace", "exec", "--execution-id", "long", "first", "-c", script])?.spawn()?;
    until("it has written", Duration::from_secs(20), || async {
        let shown = server.api.get(&format!("{WORKSPACES}/{id}/processes/long")).await?;
        Ok(if shown.body["stdout_bytes"] == 7 { Ok(()) } else { Err(shown.body.to_string()) })
    })
    .await?;
    let pid = exec.id().and_then(|id| Pid::from_raw(id.try_into().ok()?)).context("its process id")?;
    kill_process(pid, Signal::INT)?;
    let output = exec.wait_with_output().await?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(said.contains("was ended") && said.contains("emergent workspace logs first long"), "{output:?}");
    // The newest execution is followed where none is named.
    ensure!(done(&server, &["workspace", "logs", "first", "-f"]).await? == "before", "the output is not kept");
    Ok(())
}

async fn advice(runtime: Runtime) -> anyhow::Result<()> {
    let server = Server::on(runtime).await?;
    done(&server, &["workspace", "create", "--name", "first"]).await?;
    let refusal = refused(&server, &["workspace", "exec", "first", "ls | head"], 127).await?;
    ensure!(refusal.contains("emergent workspace exec first -c 'ls | head'"), "{refusal}");
    let refusal = refused(&server, &["workspace", "exec", "first", "no-such-program"], 127).await?;
    ensure!(!refusal.contains(" -c "), "{refusal}");
    let refusal = refused(&server, &["workspace", "exec", "-u", "root", "first", "true"], 125).await?;
    ensure!(refusal.contains("emergent workspace create --allow-root"), "{refusal}");
    Ok(())
}

async fn failed_create(runtime: Runtime) -> anyhow::Result<()> {
    // Nothing listens at the registry's address any more.
    let address = TcpListener::bind("127.0.0.1:0").await?.local_addr()?.to_string();
    let image = format!("{address}/never:1");
    let server = Server::start(ServerOptions::on(runtime).with("WORKSPACE_PRIVATE_REGISTRIES", address)).await?;
    let refusal = refused(&server, &["workspace", "create", "--name", "first", "--image", &image], 1).await?;
    let failed = server.api.list(WORKSPACES).await?;
    let id = failed.first().and_then(|workspace| workspace["id"].as_str()).context("it is not listed")?.to_owned();
    let why = failed[0]["error"]["message"].as_str().context("it has no reason")?;
    let remove = format!("emergent workspace rm {id}");
    ensure!(refusal.contains(&remove), "{refusal}");
    for command in [&["workspace", "ls"][..], &["workspace", "show", "first"]] {
        let output = run(&server, command).await?;
        let all = [output.stdout, output.stderr].map(|part| String::from_utf8_lossy(&part).into_owned()).concat();
        ensure!(all.contains("create_failed") && all.contains(why) && all.contains(&remove), "{all}");
    }
    done(&server, &["workspace", "rm", &id]).await?;
    ensure!(server.api.list(WORKSPACES).await?.is_empty(), "it is still listed");
    Ok(())
}

/// The kernel ends the program, and gVisor the sandbox.
async fn out_of_memory(runtime: Runtime) -> anyhow::Result<()> {
    let server = Server::on(runtime).await?;
    done(&server, &["workspace", "create", "--name", "first", "--memory", "256M"]).await?;
    let hungry = ["workspace", "exec", "first", "--", "python3", "-c", "b'x' * (1 << 30)"];
    let output = run(&server, &hungry).await?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(matches!(output.status.code(), Some(125 | 137)), "{output:?}");
    ensure!(said.contains("--memory") && said.contains("256"), "{said}");
    Ok(())
}
