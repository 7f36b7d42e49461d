//! Logins for registries, from a file of the form that `docker login` writes. Logins for only one project have the same
//! form, below the project's name: `{"auths": {…}, "projects": {"team-a": {"auths": {…}}}}`.

use std::{collections::BTreeMap, path::Path};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use emergent_core::RegistryLogin;
use emergent_provider::RegistryCredentials;
use serde::Deserialize;

#[derive(Deserialize)]
struct DockerConfig {
    #[serde(default)]
    auths: BTreeMap<String, Login>,
    #[serde(default)]
    projects: BTreeMap<String, ProjectConfig>,
}

#[derive(Deserialize)]
struct ProjectConfig {
    auths: BTreeMap<String, Login>,
}

#[derive(Deserialize)]
struct Login {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
}

/// Reads the logins, those of projects last. The reason of a failure names the host and never a password.
pub(super) fn read(path: &Path) -> Result<Vec<RegistryLogin>, String> {
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    let config: DockerConfig = serde_json::from_str(&text)
        .map_err(|error| format!("it is not a Docker config.json with `auths` (line {})", error.line()))?;
    let of_projects = config.projects.into_iter().flat_map(|(project, config)| {
        config.auths.into_iter().map(move |(host, login)| (Some(project.clone()), host, login))
    });
    let of_all = config.auths.into_iter().map(|(host, login)| (None, host, login));
    let read = |(project, host, login): (_, String, Login)| {
        Ok(RegistryLogin { host: registry(&host), project, credentials: login.read(&host)? })
    };
    of_all.chain(of_projects).map(read).collect()
}

/// Returns the registry as references name it. Docker writes some hosts as URLs, and the default registry under another
/// name.
fn registry(key: &str) -> String {
    let host = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    match host.split('/').next().unwrap_or(host) {
        "index.docker.io" => "docker.io".to_owned(),
        host => host.to_ascii_lowercase(),
    }
}

impl Login {
    fn read(self, host: &str) -> Result<RegistryCredentials, String> {
        if let (Some(username), Some(password)) = (self.username, self.password) {
            return Ok(RegistryCredentials { username, password });
        }
        let decoded = self.auth.and_then(|auth| BASE64_STANDARD.decode(auth).ok());
        let pair = decoded.and_then(|bytes| String::from_utf8(bytes).ok());
        let pair = pair.as_deref().and_then(|pair| pair.split_once(':'));
        let (username, password) = pair.ok_or_else(|| {
            format!("{host} has neither `auth` nor `username` and `password`; credential helpers are not supported")
        })?;
        Ok(RegistryCredentials { username: username.to_owned(), password: password.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_logins_are_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.json");
        let text = r#"{"auths": {"https://a.example/v1/": {"auth": "dTpwOnE="}, "b.example:5000": {"username": "u", "password": "p"}}}"#;
        std::fs::write(&path, text).unwrap();
        let logins = read(&path).unwrap();
        assert_eq!((logins[0].host.as_str(), logins[0].credentials.password.as_str()), ("b.example:5000", "p"));
        assert_eq!((logins[1].host.as_str(), logins[1].credentials.password.as_str()), ("a.example", "p:q"));
    }

    #[test]
    fn a_project_has_logins_of_its_own() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.json");
        let text = r#"{"auths": {"https://index.docker.io/v1/": {"auth": "dTpwOnE="}},
            "projects": {"team-a": {"auths": {"A.example": {"username": "u", "password": "p"}}}}}"#;
        std::fs::write(&path, text).unwrap();
        let logins = read(&path).unwrap();
        let shown = logins.iter().map(|login| (login.host.as_str(), login.project.as_deref())).collect::<Vec<_>>();
        assert_eq!(shown, [("docker.io", None), ("a.example", Some("team-a"))]);
    }

    #[test]
    fn a_login_without_a_password_is_named_by_its_host() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.json");
        std::fs::write(&path, r#"{"auths": {"a.example": {}}, "credsStore": "x"}"#).unwrap();
        assert!(read(&path).unwrap_err().contains("a.example"));
    }
}
