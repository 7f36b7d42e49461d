//! The commands: each turns its part of the command line into calls and prints the results.

mod backup;
mod doctor;
mod env;
mod firecracker;
mod firecracker_manager;
mod machine;
mod mcp;
mod mcp_paths;
mod project;
mod serve;
mod server;
mod snapshot;
mod token;
mod workspace;

use crate::{
    cli::{Cli, Command},
    client::ClientError,
    exit::ExitStatus,
    print,
};

/// Prepares a command while the process has only one thread.
pub(crate) fn prepare(cli: &mut Cli) -> Result<(), ExitStatus> {
    match &mut cli.command {
        Command::Firecracker(command) => firecracker::prepare(command),
        _ => Ok(()),
    }
}

/// Runs the command of the command line.
pub(crate) async fn run(cli: Cli) -> ExitStatus {
    match cli.command {
        Command::Serve(arguments) => serve::run(&arguments).await,
        Command::FirecrackerManager(arguments) => firecracker_manager::run(arguments).await,
        Command::Doctor(arguments) => doctor::run(&arguments).await,
        Command::Env(arguments) => env::run(&arguments),
        Command::Workspace(arguments) => workspace::run(arguments).await,
        Command::Snapshot(arguments) => snapshot::run(arguments).await,
        Command::Mcp(arguments) => mcp::run(arguments).await,
        Command::Token(arguments) => ended(token::run(arguments).await),
        Command::Project(arguments) => ended(project::run(arguments).await),
        Command::Server(arguments) => ended(server::run(arguments).await),
        Command::Backup(arguments) => backup::run(&arguments).await,
        Command::Firecracker(command) => firecracker::run(command).await,
        Command::Kernel { command } => machine::kernel(command).await,
        Command::Image { command } => machine::image(command).await,
        Command::Openapi => match emergent_api::openapi_json() {
            Ok(document) => {
                print::out(&document);
                ExitStatus::Success
            }
            Err(error) => {
                print::error(&format!("the document cannot be written: {error}"));
                ExitStatus::Failure
            }
        },
    }
}

/// Shows a failure; returns the exit status.
fn ended(result: Result<(), ClientError>) -> ExitStatus {
    match result {
        Ok(()) => ExitStatus::Success,
        Err(error) => {
            print::error(&error.for_people());
            ExitStatus::Failure
        }
    }
}
