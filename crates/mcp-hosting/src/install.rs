//! Packages from registries, installed once into a volume of the server's, in a sandbox that has a network; the server
//! itself then runs without. Node.js, for images that have no npm, is in a volume that all servers of the engine read.

use std::collections::BTreeMap;

use emergent_guest_client::{Guest, GuestCallError};
use emergent_guest_proto::tools::{BashRequest, BashResult};
use emergent_store::{McpPackage, PackageRegistry};

/// The volume's name.
pub(crate) const VOLUME: &str = "packages";
/// The volume's path inside the sandbox.
pub(crate) const DIRECTORY: &str = "/opt/packages";
/// The path of the package's program, whatever the package calls it.
pub(crate) const PROGRAM: &str = "/opt/packages/run";

/// The volume with Node.js, for all servers of the engine: another version has another name.
pub(crate) const NODE_VOLUME: &str = "node-22";
/// The path of Node.js inside the sandbox.
pub(crate) const NODE_DIRECTORY: &str = "/opt/emergent-node";

/// npm's pauses before it asks a registry again that it could not reach, in milliseconds. Its own are 10 s and a
/// minute, in which it says nothing.
pub(crate) const NPM_RETRIES: [(&str, &str); 2] =
    [("npm_config_fetch_retry_mintimeout", "1000"), ("npm_config_fetch_retry_maxtimeout", "10000")];

/// The time that an installation may take, in milliseconds.
const TIME_LIMIT_MS: u64 = 15 * 60 * 1000;
/// The number of bytes of the last lines of the installer's output that are shown.
const SHOWN: usize = 2_000;

const NODE: &str = include_str!("install/node.sh");
const NPM: &str = include_str!("install/npm.sh");
const PYPI: &str = include_str!("install/pypi.sh");

/// The reason for which a package was not installed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InstallError {
    #[error("its package could not be installed: {0}")]
    Failed(String),
    #[error("its package could not be installed")]
    Guest(#[from] GuestCallError),
}

/// Whether the sandbox has no npm, neither the image's nor the engine's.
pub(crate) async fn lacks_node(guest: &Guest) -> Result<bool, InstallError> {
    let looking = format!("command -v npm || [ -e {NODE_DIRECTORY}/current ]");
    Ok(run(guest, &looking, BTreeMap::new()).await?.exit_code != Some(0))
}

/// Fetches Node.js into its volume, unless it is there.
pub(crate) async fn node(guest: &Guest, environment: &BTreeMap<String, String>) -> Result<(), InstallError> {
    checked(run(guest, NODE, environment.clone()).await?)
}

/// Installs a package, unless the volume has the same one already.
pub(crate) async fn package(
    guest: &Guest,
    package: &McpPackage,
    environment: &BTreeMap<String, String>,
) -> Result<(), InstallError> {
    let script = match package.registry {
        PackageRegistry::Npm => NPM,
        PackageRegistry::Pypi => PYPI,
    };
    let mut env: BTreeMap<_, _> = NPM_RETRIES.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    env.extend(environment.clone());
    env.insert("DIRECTORY".to_owned(), DIRECTORY.to_owned());
    env.insert("PACKAGE".to_owned(), package.requirement.clone());
    env.insert("CONSTRAINTS".to_owned(), package.constraints.join("\n"));
    checked(run(guest, script, env).await?)
}

async fn run(guest: &Guest, script: &str, env: BTreeMap<String, String>) -> Result<BashResult, InstallError> {
    let request = BashRequest {
        command: script.to_owned(),
        timeout_ms: Some(TIME_LIMIT_MS),
        env: env.into_iter().chain([("NODE".to_owned(), NODE_DIRECTORY.to_owned())]).collect(),
        ..BashRequest::default()
    };
    Ok(guest.bash(request).await?)
}

fn checked(result: BashResult) -> Result<(), InstallError> {
    if result.exit_code == Some(0) {
        return Ok(());
    }
    let said = format!("{}\n{}", result.stdout, result.stderr);
    Err(InstallError::Failed(last_lines(said.trim(), SHOWN).to_owned()))
}

/// The last lines of a text that fit into so many bytes; the end of the last one where that does not fit.
fn last_lines(text: &str, most: usize) -> &str {
    let Some(from) = text.len().checked_sub(most).filter(|from| *from > 0) else { return text };
    let end = (from..=text.len()).find_map(|from| text.get(from..)).unwrap_or_default();
    let begins_a_line = text.as_bytes().get(from - 1) == Some(&b'\n');
    match end.split_once('\n') {
        Some((_, whole)) if !begins_a_line => whole,
        _ => end,
    }
}

#[cfg(test)]
mod tests {
    use super::last_lines;

    #[test]
    fn the_last_lines_are_whole_where_they_fit() {
        let text = "first\nsecond é\nthird";
        for (most, expected) in [
            (100, text),
            (text.len(), text),
            (text.len() - 1, "second é\nthird"),
            ("second é\nthird".len(), "second é\nthird"),
            ("d é\nthird".len(), "third"),
            (5, "third"),
            (3, "ird"),
        ] {
            assert_eq!(last_lines(text, most), expected, "{most}");
        }
        assert_eq!(last_lines("éé", 3), "é");
    }
}
