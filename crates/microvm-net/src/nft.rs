//! The program `nft`: scripts on its standard input, never anything of a request on its command line.

use std::{process::Stdio, time::Duration};

use tokio::{io::AsyncWriteExt as _, process::Command, time::timeout};

use crate::NetworkError;

const DEADLINE: Duration = Duration::from_secs(5);

/// Carries out a script as one transaction.
pub(crate) async fn apply(doing: &str, script: &str) -> Result<(), NetworkError> {
    run("nft", &["-f", "-"], script, doing).await.map(drop)
}

/// Whether there is a chain of this name in our table.
pub(crate) async fn has_chain(table: &str, chain: &str) -> Result<bool, NetworkError> {
    match run("nft", &["list", "chain", "inet", table, chain], "", "looking for the packet filter").await {
        Ok(_) => Ok(true),
        Err(NetworkError::Host { reason, .. }) if reason.contains("No such file or directory") => Ok(false),
        Err(error) => Err(error),
    }
}

/// Runs a program of the packet filter and returns its output.
pub(crate) async fn run(program: &str, arguments: &[&str], input: &str, doing: &str) -> Result<Vec<u8>, NetworkError> {
    let not_run = |error: std::io::Error| {
        NetworkError::host(doing, format!("{program} could not be run ({error}); install it, or repair PATH"))
    };
    let ended = async {
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(not_run)?;
        if let Some(mut stdin) = child.stdin.take() {
            // A program that does not read says why on standard error.
            stdin.write_all(input.as_bytes()).await.ok();
        }
        let output = child.wait_with_output().await.map_err(not_run)?;
        if output.status.success() {
            return Ok(output.stdout);
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Err(NetworkError::host(doing, format!("{program} refused: {}", said.trim())))
    };
    timeout(DEADLINE, ended).await.unwrap_or_else(|_| {
        Err(NetworkError::host(doing, format!("{program} did not answer within {} s", DEADLINE.as_secs())))
    })
}
