//! `emergent doctor`: checks whether this host can run a server with these settings, and names remedies. Leaves nothing
//! behind.

mod check;
mod docker;
mod host;
mod remains;
mod server;

use std::path::Path;

use emergent_types::ServerId;

use self::{
    check::{Check, Verdict},
    server::RunningServer,
};
use crate::{
    cli::DoctorArgs,
    commands::serve::read_config,
    config::{Config, Settings},
    exit::ExitStatus,
    print,
};

/// Runs all checks and shows them; fails if one fails. Or removes the objects of a server that no longer exists.
pub(super) async fn run(arguments: &DoctorArgs) -> ExitStatus {
    if let Some(server) = arguments.remove_leftovers {
        return match remove_leftovers(arguments, server.into()).await {
            Ok(()) => ExitStatus::Success,
            Err(error) => {
                print::error(&format!("{error:#}"));
                ExitStatus::Failure
            }
        };
    }
    let progress = print::spinner("looking at this host");
    let checks = checks(arguments.config.as_deref()).await;
    progress.finish_and_clear();
    let fails = checks.iter().any(|check| check.verdict == Verdict::Fail);
    if arguments.json {
        print::json(&serde_json::json!({ "ok": !fails, "checks": checks }));
    } else {
        checks.iter().for_each(Check::show);
        print::line(summary(&checks));
    }
    if fails { ExitStatus::Failure } else { ExitStatus::Success }
}

async fn remove_leftovers(arguments: &DoctorArgs, server: ServerId) -> anyhow::Result<()> {
    let config = read_config([], arguments.config.as_deref())?;
    let (docker, remains) = docker::remains_of(&config, server).await?;
    let Some(remains) = remains else { anyhow::bail!("Docker has nothing of a server {server}") };
    remains.lines().iter().for_each(|line| print::line(&print::printable(line)));
    if let Some(why) = remains.refusal() {
        anyhow::bail!(why);
    }
    if !arguments.yes {
        print::line("\nNothing is removed yet. The same command with --yes removes all of it, with the files in it.");
        return Ok(());
    }
    remains.remove(&docker).await?;
    print::line("\nAll of it is removed.");
    Ok(())
}

async fn checks(file: Option<&Path>) -> Vec<Check> {
    let mut checks = Vec::new();
    let (config, running) = match read_config([], file) {
        Ok(config) => {
            let running = RunningServer::find(&config).await;
            checks.push(settings(&config, running.as_ref()));
            (config, running)
        }
        Err(error) => {
            checks.push(Check::fail(
                "settings",
                &error.to_string(),
                "mend them; `emergent serve --help` lists them all",
            ));
            // The rest is looked at as if there were no settings, whose defaults are always well-formed.
            match Config::read(&Settings::default(), Vec::new()) {
                Ok(config) => (config, None),
                Err(_) => return checks,
            }
        }
    };
    checks.extend(docker::checks(&config).await);
    checks.push(host::packet_filter(&config).await);
    checks.push(host::guest_binary(&config));
    if running.is_none() {
        checks.push(host::listen_address(&config));
    }
    checks.push(host::data_directory(&config));
    checks.push(host::disk_space(&config));
    checks.push(host::kvm());
    if let Some(server) = running {
        checks.extend(server.checks(&config).await);
    }
    checks
}

/// Checks the settings. Those of this shell may differ from those of a running server, which reports itself whether it
/// takes workspace calls.
fn settings(config: &Config, running: Option<&RunningServer>) -> Check {
    if !config.core.enabled && !running.is_some_and(RunningServer::has_workspaces) {
        let advice = "set ENABLE_AGENT_WORKSPACES=true for the server";
        return Check::warn("settings", "workspaces are switched off", advice);
    }
    match config.without_effect.as_slice() {
        [] => Check::ok("settings", "well-formed, workspaces switched on"),
        names => {
            Check::warn("settings", &format!("{} have no effect in this release", names.join(", ")), "take them out")
        }
    }
}

fn summary(checks: &[Check]) -> &'static str {
    let worst = checks.iter().map(|check| check.verdict).max().unwrap_or(Verdict::Ok);
    match worst {
        Verdict::Ok => "\nThis host is ready for workspaces.",
        Verdict::Warn => "\nThis host can run workspaces; the warnings say what is weaker or missing.",
        Verdict::Fail => "\nThis host can't run workspaces yet; the failures say what to do.",
    }
}
