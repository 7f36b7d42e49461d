//! Packages from registries, installed once into a volume of the server's, in a sandbox that has a network; the server
//! itself then runs without.

use std::collections::BTreeMap;

use emergent_guest_client::{Guest, GuestCallError};
use emergent_guest_proto::tools::BashRequest;
use emergent_store::{McpPackage, PackageRegistry};

/// The volume's name.
pub(crate) const VOLUME: &str = "packages";
/// Where it is inside.
pub(crate) const DIRECTORY: &str = "/opt/packages";
/// The program of the package, whatever it is called.
pub(crate) const PROGRAM: &str = "/opt/packages/run";

/// How long an installation may take, in milliseconds.
const TIME_LIMIT_MS: u64 = 15 * 60 * 1000;
/// How much of what the installer says is shown.
const SHOWN: usize = 2_000;

const NPM: &str = include_str!("install/npm.sh");
const PYPI: &str = include_str!("install/pypi.sh");

/// Why a package was not installed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InstallError {
    #[error("its package could not be installed: {0}")]
    Failed(String),
    #[error("its package could not be installed")]
    Guest(#[from] GuestCallError),
}

/// Installs a package, unless the volume has the same one already.
pub(crate) async fn install(
    guest: &Guest,
    package: &McpPackage,
    environment: &[(String, String)],
) -> Result<(), InstallError> {
    let script = match package.registry {
        PackageRegistry::Npm => NPM,
        PackageRegistry::Pypi => PYPI,
    };
    let mut env: BTreeMap<String, String> = environment.iter().cloned().collect();
    env.insert("DIRECTORY".to_owned(), DIRECTORY.to_owned());
    env.insert("PACKAGE".to_owned(), package.requirement.clone());
    env.insert("CONSTRAINTS".to_owned(), package.constraints.join("\n"));
    let request = BashRequest {
        command: script.to_owned(),
        timeout_ms: Some(TIME_LIMIT_MS),
        env,
        ..serde_json::from_value(serde_json::json!({ "command": "" })).map_err(|error| failed(error.to_string()))?
    };
    let result = guest.bash(request).await?;
    if result.exit_code == Some(0) {
        return Ok(());
    }
    let said = format!("{}\n{}", result.stdout, result.stderr);
    let from = said.len().saturating_sub(SHOWN);
    let tail = (from..=said.len()).find_map(|from| said.get(from..)).unwrap_or_default();
    Err(failed(tail.trim().to_owned()))
}

fn failed(reason: String) -> InstallError {
    InstallError::Failed(reason)
}
