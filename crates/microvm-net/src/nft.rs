//! The programs of the packet filter, with this crate's deadline and errors.

use std::time::Duration;

use emergent_packet_filter::{Nft, ProgramError, run};

use crate::NetworkError;

const DEADLINE: Duration = Duration::from_secs(5);
const NFT: Nft = Nft::within(DEADLINE);

/// Carries out a script as one transaction.
pub(crate) async fn apply(doing: &str, script: &str) -> Result<(), NetworkError> {
    NFT.apply(script).await.map_err(failed(doing))
}

/// Whether there is a chain of this name in our table.
pub(crate) async fn has_chain(table: &str, chain: &str) -> Result<bool, NetworkError> {
    NFT.has_chain("inet", table, chain).await.map_err(failed("looking for the packet filter"))
}

/// Lists the chains of all tables of the host, as JSON.
pub(crate) async fn list_chains(doing: &str) -> Result<Vec<u8>, NetworkError> {
    NFT.list_chains().await.map_err(failed(doing))
}

/// Runs the program of the older packet filter.
pub(crate) async fn iptables(doing: &str, arguments: &[&str]) -> Result<(), NetworkError> {
    run("iptables", arguments, "", DEADLINE).await.map(drop).map_err(failed(doing))
}

fn failed(doing: &str) -> impl FnOnce(ProgramError) -> NetworkError {
    move |error| match error {
        ProgramError::NotRun { program, source } => {
            NetworkError::host(doing, format!("{program} could not be run ({source}); install it, or repair PATH"))
        }
        ProgramError::Refused { .. } | ProgramError::Silent { .. } => NetworkError::host(doing, error),
    }
}
