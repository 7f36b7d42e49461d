//! The settings of hosting, which the operator decides.

use std::{collections::BTreeMap, time::Duration};

use emergent_provider::ImageRef;
use emergent_sealing::SecretKey;
use emergent_types::Fault;

/// The settings of hosting; the code that reads them checks them.
#[derive(Debug, Clone)]
pub struct HostingConfig {
    /// Whether servers may be hosted at all (`ENABLE_AGENT_WORKSPACES`).
    pub enabled: bool,
    /// The image of a server whose request names none (`WORKSPACE_DEFAULT_IMAGE`).
    pub default_image: ImageRef,
    /// The key that encrypts environments (`EMERGENT_SECRET_KEY`); without it none can be kept.
    pub secret_key: Option<SecretKey>,
    /// The longest body that an endpoint takes, in bytes (`EMERGENT_MCP_BODY_LIMIT`).
    pub body_limit: usize,
    /// The most sessions that a server has (`EMERGENT_MCP_MAX_SESSIONS`).
    pub max_sessions: usize,
    /// The time for which a session may be unused before it ends (`EMERGENT_MCP_IDLE_MIN`).
    pub idle_after: Duration,
    /// `Host` names and `Origin` values that endpoints take besides those of this machine; `None` takes any.
    pub allowed_hosts: Option<Vec<String>>,
    /// Variables of the installation of packages, such as a mirror's address (`EMERGENT_MCP_INSTALL_ENV`,
    /// `EMERGENT_MCP_INSTALL_ENV_OF_PROJECTS`).
    pub install_environment: Vec<InstallVariable>,
    /// The step at which the process kills itself, for tests of crashes (`EMERGENT_FAULT`).
    pub fault: Option<Fault>,
}

/// A variable of the installation of packages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstallVariable {
    /// The name of the project whose packages are installed with it; `None` for all.
    pub project: Option<String>,
    /// The variable's name.
    pub name: String,
    /// The variable's value, which may be a secret.
    pub value: String,
}

// === impl HostingConfig ===

impl HostingConfig {
    /// The variables that a project's packages are installed with: its own go before those of all.
    pub(crate) fn install_environment_of(&self, project: &str) -> BTreeMap<String, String> {
        let of = |own: bool| {
            let all = self.install_environment.iter();
            let meant = all.filter(move |variable| match &variable.project {
                Some(name) => own && name == project,
                None => !own,
            });
            meant.map(|variable| (variable.name.clone(), variable.value.clone()))
        };
        of(false).chain(of(true)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_projects_packages_are_installed_with_no_other_projects_variables() {
        let variable = |project: Option<&str>, name: &str, value: &str| InstallVariable {
            project: project.map(str::to_owned),
            name: name.to_owned(),
            value: value.to_owned(),
        };
        let config = HostingConfig {
            enabled: true,
            default_image: "base:test".parse().unwrap(),
            secret_key: None,
            body_limit: 1,
            max_sessions: 1,
            idle_after: Duration::ZERO,
            allowed_hosts: None,
            install_environment: vec![
                variable(Some("red"), "PIP_INDEX_URL", "red"),
                variable(None, "PIP_INDEX_URL", "all"),
                variable(None, "HTTPS_PROXY", "proxy"),
                variable(Some("blue"), "NPM_TOKEN", "blue"),
            ],
            fault: None,
        };
        let of = |project| {
            let variables = config.install_environment_of(project).into_iter();
            variables.map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>()
        };
        assert_eq!(of("red"), ["HTTPS_PROXY=proxy", "PIP_INDEX_URL=red"]);
        assert_eq!(of("blue"), ["HTTPS_PROXY=proxy", "NPM_TOKEN=blue", "PIP_INDEX_URL=all"]);
    }
}
