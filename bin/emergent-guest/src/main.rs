//! The `emergent-guest` program: reads the command line and runs its command.

use std::{io::Write as _, process::ExitCode};

use emergent_guest::{args, connect, copy, init, serve};

fn main() -> ExitCode {
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_max_level(tracing::Level::WARN).with_ansi(false).init();
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<()> {
    // The kernel starts it as `/init`, with words of its command line that mean nothing here.
    let mut arguments = std::env::args_os();
    if arguments.next().is_some_and(|name| name == "/init") {
        init::run();
        return Ok(());
    }
    match args::parse(arguments)? {
        args::Command::Init => init::run(),
        args::Command::Serve(settings) => serve::run(*settings)?,
        args::Command::Connect { socket } => connect::run(&socket)?,
        args::Command::CopyTrees(pairs) => copy::when_told(&pairs, std::io::stdin().lock(), std::io::stdout())?,
        args::Command::Version => {
            writeln!(std::io::stdout(), "emergent-guest {}", env!("CARGO_PKG_VERSION"))?;
        }
    }
    Ok(())
}
