//! Several servers: on one PostgreSQL database and one Docker, and on databases of their own beside each other.
//!
//! None of it depends on the runtime, so that every case runs on one.

mod apart;
mod database;
mod drain;
mod forward;
mod hosted;
mod restore;
mod takeover;

use std::process::ExitCode;

use emergent_live_tests::{Runtime, Server, ServerOptions};

fn main() -> ExitCode {
    emergent_live_tests::case::run_on(
        &[Runtime::Runc],
        &[takeover::cases, forward::cases, hosted::cases, drain::cases, database::cases, apart::cases, restore::cases],
    )
}

/// Options of a server on a PostgreSQL database of its own.
async fn on_postgres(runtime: Runtime) -> anyhow::Result<ServerOptions> {
    Ok(ServerOptions::on(runtime).with("DATABASE_URL", emergent_test_postgres::database().await?).advertised())
}

/// Two servers on one database and one engine, each of which reaches the other.
async fn two(runtime: Runtime) -> anyhow::Result<[Server; 2]> {
    let first = Server::start(on_postgres(runtime).await?).await?;
    let second = Server::start(ServerOptions::beside(&first, true)).await?;
    Ok([first, second])
}
