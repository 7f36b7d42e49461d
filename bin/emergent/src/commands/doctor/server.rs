//! The server that runs here already, if there is one: its own answers precede conclusions from settings.

use std::time::Duration;

use emergent_api::resources::{health::Health, providers::ProviderList};
use reqwest::redirect::Policy;

use super::check::Check;
use crate::{
    cli::ClientArgs,
    client::{Client, whole},
    config::{Config, server_url_file},
};

const DEADLINE: Duration = Duration::from_secs(3);

/// A server of this software that answers at the address of the settings.
pub(super) struct RunningServer {
    url: String,
    health: Health,
}

impl RunningServer {
    /// Asks the program at the address of the data directory's server, or of the settings. `None`: no program answers,
    /// or another one.
    pub(super) async fn find(config: &Config) -> Option<Self> {
        let scheme = if config.http.tls.is_some() { "https" } else { "http" };
        let of_settings = || format!("{scheme}://{}", config.http.listen);
        // The address that the server of this data directory has written down, as for the other commands.
        let written = std::fs::read_to_string(server_url_file(&config.data_dir));
        let url = written.map_or_else(|_| of_settings(), |text| text.trim().to_owned());
        let http = reqwest::Client::builder().timeout(DEADLINE).redirect(Policy::none()).build().ok()?;
        let answer = http.get(format!("{url}/health")).send().await.ok()?;
        Some(Self { health: serde_json::from_slice(&whole(answer).await.ok()?).ok()?, url })
    }

    /// Whether the server takes workspace calls.
    pub(super) fn has_workspaces(&self) -> bool {
        self.health.workspaces_enabled
    }

    /// Checks the server's and its providers' state.
    pub(super) async fn checks(&self, config: &Config) -> Vec<Check> {
        let Health { version, uptime_seconds, workspaces_enabled, .. } = &self.health;
        let switched = if *workspaces_enabled { "on" } else { "off" };
        let detail =
            format!("{}, release {version}, up for {uptime_seconds} s, workspaces switched {switched}", self.url);
        let server = match workspaces_enabled {
            true => Check::ok("server", &detail),
            false => Check::warn("server", &detail, "start it with ENABLE_AGENT_WORKSPACES=true"),
        };
        let providers = match self.providers(config).await {
            Ok(providers) => of_providers(&providers),
            Err(reason) => {
                let advice = "run doctor as the server's user, or set EMERGENT_TOKEN";
                vec![Check::warn("providers", &format!("the server does not tell: {reason}"), advice)]
            }
        };
        std::iter::once(server).chain(providers).collect()
    }

    async fn providers(&self, config: &Config) -> Result<ProviderList, String> {
        let client = Client::new(&ClientArgs {
            server: Some(self.url.clone()),
            token: std::env::var("EMERGENT_TOKEN").ok(),
            ca: std::env::var_os("EMERGENT_CA_FILE"),
            session: None,
            data_dir: Some(config.data_dir.clone()),
            json: false,
        });
        let asked = async { client?.get::<ProviderList>("/api/v1/agent/workspaces/providers").await };
        match tokio::time::timeout(DEADLINE, asked).await {
            Ok(answer) => answer.map_err(|error| error.to_string()),
            Err(_) => Err(format!("no answer within {} s", DEADLINE.as_secs())),
        }
    }
}

/// Makes one check for each provider that the server has.
fn of_providers(providers: &ProviderList) -> Vec<Check> {
    let registered = providers.items.iter().filter(|provider| provider.registered);
    let checks = registered.map(|provider| {
        let detail = format!("{}: {}", provider.provider.as_str(), provider.reason);
        match provider.warnings.as_slice() {
            _ if !provider.healthy => {
                Check::warn("provider", &detail, "the checks of this host above say how to mend it")
            }
            [] => Check::ok("provider", &detail),
            warnings => Check::warn("provider", &detail, &warnings.join("; ")),
        }
    });
    checks.collect()
}
