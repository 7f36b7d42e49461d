//! `emergent firecracker …`.

mod net_helper;
mod setup;

use crate::{
    cli::{FirecrackerCommand, NetHelperArgs},
    exit::ExitStatus,
    print,
};

/// Prepares a command while the process has one thread and all its privileges.
pub(super) fn prepare(command: &mut FirecrackerCommand) -> Result<(), ExitStatus> {
    match command {
        FirecrackerCommand::NetHelper(arguments) => net_helper::prepare(arguments).map_err(|error| {
            print::error(&format!("{error:#}"));
            ExitStatus::Failure
        }),
        FirecrackerCommand::Setup(_) => Ok(()),
    }
}

/// Runs the command.
pub(super) async fn run(command: FirecrackerCommand) -> ExitStatus {
    let ended = match command {
        FirecrackerCommand::Setup(arguments) => return setup::run(&arguments).await,
        FirecrackerCommand::NetHelper(arguments) => serve(arguments).await,
    };
    match ended {
        Ok(()) => ExitStatus::Success,
        Err(error) => {
            print::error(&format!("{error:#}"));
            ExitStatus::Failure
        }
    }
}

async fn serve(arguments: NetHelperArgs) -> anyhow::Result<()> {
    net_helper::run(arguments).await
}
