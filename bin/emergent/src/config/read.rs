//! From texts to [`Config`]: each setting is read once, and everything that is wrong is noted.

use std::{net::SocketAddr, path::PathBuf, str::FromStr, time::Duration};

use emergent_api::http::{rates::RateLimit, size::ByteSize};
use emergent_core::{ArgumentLevel, AuditConfig, CoreConfig, DeploymentMode};
use emergent_firecracker_manager::{Host, ManagerConfig};
use emergent_guest_proto::WorkspaceDefaults;
use emergent_mcp_hosting::{HostStep, InstallVariable};
use emergent_provider::{ImageRef, Isolation, ProviderKind};
use emergent_provider_docker::IpNet;
use emergent_sealing::SecretKey;
use emergent_store::{DatabaseUrl, IdleAction, IdlePolicy};
use emergent_types::{Fault as FaultPoint, ResourceLimits};
use secrecy::SecretString;

use super::{
    Config, ConfigError, ConnectionLimits, DockerSettings, FirecrackerSettings, HttpConfig, LogConfig, McpSettings,
    Settings, TlsFiles, default_data_dir,
    env_vars::{self, Variable},
    error::Fault,
    registries,
    source::Source,
};

/// Processes and threads of a workspace when the request does not say.
const DEFAULT_PIDS: u32 = 1024;
const SECONDS_OF_A_DAY: f64 = 24.0 * 60.0 * 60.0;

struct Reading<'a> {
    settings: &'a Settings,
    faults: Vec<Fault>,
}

impl Config {
    /// Reads the settings.
    ///
    /// # Errors
    /// [`ConfigError`] names everything that is wrong, with what it takes.
    pub(crate) fn read(settings: &Settings, faults: Vec<Fault>) -> Result<Self, ConfigError> {
        let mut reading = Reading { settings, faults };
        let config = reading.config();
        if reading.faults.is_empty() { Ok(config) } else { Err(ConfigError(reading.faults)) }
    }
}

// === impl Reading ===

impl Reading<'_> {
    fn config(&mut self) -> Config {
        let data_dir = self.absolute(env_vars::EMERGENT_DATA_DIR).unwrap_or_else(default_data_dir);
        let database = self
            .optional(env_vars::DATABASE_URL, |text| text.parse::<DatabaseUrl>().map_err(|error| error.to_string()));
        Config {
            database: database.unwrap_or_else(|| DatabaseUrl::sqlite(data_dir.join("emergent.sqlite"))),
            data_dir,
            http: self.http(),
            log: self.log(),
            core: self.core(),
            docker: self.docker(),
            firecracker: self.firecracker(),
            rate_limit: self.rate_limit(),
            mcp: self.mcp(),
            guest_path: self.path(env_vars::EMERGENT_GUEST_PATH),
            shutdown_grace: Duration::from_secs(self.whole(env_vars::EMERGENT_SHUTDOWN_GRACE_SECONDS, 0, 600)),
            without_effect: self.without_effect(),
        }
    }

    fn http(&mut self) -> HttpConfig {
        let listen: SocketAddr = self.parsed(env_vars::EMERGENT_LISTEN);
        let cert = self.path(env_vars::EMERGENT_TLS_CERT);
        let key = self.path(env_vars::EMERGENT_TLS_KEY);
        let plaintext = self.boolean(env_vars::EMERGENT_ALLOW_PLAINTEXT);
        let tls = match (cert, key) {
            (Some(cert), Some(key)) => Some(TlsFiles { cert, key }),
            (None, None) => None,
            (Some(_), None) | (None, Some(_)) => {
                self.conflict("EMERGENT_TLS_CERT and EMERGENT_TLS_KEY go together; set both or neither".to_owned());
                None
            }
        };
        if tls.is_none() && !listen.ip().is_loopback() && !plaintext {
            self.conflict(format!(
                "EMERGENT_LISTEN is {listen}, which others reach, and there is no TLS: tokens would travel in the \
                 clear. Set EMERGENT_TLS_CERT and EMERGENT_TLS_KEY, or listen on 127.0.0.1 behind a reverse proxy \
                 that has TLS, or set EMERGENT_ALLOW_PLAINTEXT=true if the network is trusted"
            ));
        }
        HttpConfig {
            listen,
            tls,
            allowed_hosts: self.list(env_vars::EMERGENT_ALLOWED_HOSTS),
            advertise_url: self.optional(env_vars::EMERGENT_ADVERTISE_URL, advertise_url),
            peer_ca: self.path(env_vars::EMERGENT_PEER_CA_FILE),
            connections: ConnectionLimits {
                all: self.whole(env_vars::EMERGENT_MAX_CONNECTIONS, 16, 1_000_000),
                one_address: self.whole(env_vars::EMERGENT_MAX_CONNECTIONS_PER_ADDRESS, 1, 1_000_000),
            },
            memory_budget: self.bytes(env_vars::EMERGENT_MEMORY_BUDGET, 192 << 20, 1 << 40),
        }
    }

    fn rate_limit(&mut self) -> Option<RateLimit> {
        let per_second = self.whole(env_vars::WORKSPACE_RATE_LIMIT, 0, 1_000_000);
        let burst = self.whole(env_vars::WORKSPACE_RATE_BURST, 1, 1_000_000);
        (per_second > 0).then_some(RateLimit { per_second, burst })
    }

    fn mcp(&mut self) -> McpSettings {
        let minutes = self.number(env_vars::EMERGENT_MCP_IDLE_MIN, 0.02, 525_600.0);
        let body_limit = self.bytes(env_vars::EMERGENT_MCP_BODY_LIMIT, 16 << 10, 16 << 20);
        McpSettings {
            secret_key: self
                .optional(env_vars::EMERGENT_SECRET_KEY, |text| SecretKey::from_hex(text).map_err(|_| String::new())),
            body_limit,
            max_sessions: self.whole(env_vars::EMERGENT_MCP_MAX_SESSIONS, 1, 256),
            idle_after: Duration::from_secs_f64(60.0 * minutes),
            install_environment: self.install_environment(),
        }
    }

    fn log(&mut self) -> LogConfig {
        let filter = self.required(env_vars::EMERGENT_LOG, |text| {
            text.parse::<tracing_subscriber::EnvFilter>().map(|_| text.to_owned()).map_err(|error| error.to_string())
        });
        let json = self.word(env_vars::EMERGENT_LOG_FORMAT, &[("text", false), ("json", true)]);
        LogConfig { filter, json }
    }

    fn core(&mut self) -> CoreConfig {
        let ttl_days: f64 = self.number(env_vars::WORKSPACE_DEFAULT_TTL_DAYS, 0.001, 3650.0);
        let ttl = Duration::from_secs_f64(ttl_days * SECONDS_OF_A_DAY);
        let default_image: ImageRef = self.parsed(env_vars::WORKSPACE_DEFAULT_IMAGE);
        CoreConfig {
            enabled: self.boolean(env_vars::ENABLE_AGENT_WORKSPACES),
            default_provider: self.default_provider(),
            deployment_mode: self.word(
                env_vars::WORKSPACE_DEPLOYMENT_MODE,
                &[("self-hosted", DeploymentMode::SelfHosted), ("managed", DeploymentMode::Managed)],
            ),
            warm_pool_size: self.whole(env_vars::WORKSPACE_WARM_POOL_SIZE, 0, 1000),
            warm_pool_images: self.warm_pool_images(&default_image),
            max_concurrent: self.whole(env_vars::WORKSPACE_MAX_CONCURRENT, 1, 100_000),
            disk_reserve: self.parsed::<ByteSize>(env_vars::WORKSPACE_DISK_RESERVE).0,
            max_mcp_servers: self.whole(env_vars::EMERGENT_MCP_MAX_SERVERS, 0, 100_000),
            default_ttl: chrono::Duration::from_std(ttl).unwrap_or(chrono::Duration::MAX),
            cleanup_interval: Duration::from_secs(
                60 * self.whole::<u64>(env_vars::WORKSPACE_CLEANUP_INTERVAL_MIN, 1, 10_080),
            ),
            orphan_grace: chrono::Duration::seconds(self.whole(env_vars::WORKSPACE_ORPHAN_GRACE_SEC, 10, 86_400)),
            destroyed_retention: self.parts_of_days(env_vars::WORKSPACE_DESTROYED_RETENTION_DAYS),
            leftover_retention: self.parts_of_days(env_vars::WORKSPACE_LEFTOVER_RETENTION_DAYS),
            default_idle: IdlePolicy {
                action: self.word(
                    env_vars::WORKSPACE_IDLE_ACTION,
                    &[("none", IdleAction::None), ("pause", IdleAction::Pause), ("stop", IdleAction::Stop)],
                ),
                after: Duration::from_secs_f64(60.0 * self.number(env_vars::WORKSPACE_IDLE_AFTER_MIN, 0.02, 525_600.0)),
            },
            alert_threshold_pct: self.whole(env_vars::WORKSPACE_ALERT_THRESHOLD_PCT, 1, 100),
            default_limits: ResourceLimits {
                cpu: self.number(env_vars::WORKSPACE_DEFAULT_CPU, 0.01, 1024.0),
                memory_bytes: self.size(env_vars::WORKSPACE_DEFAULT_MEMORY),
                disk_bytes: self.size(env_vars::WORKSPACE_DEFAULT_DISK),
                pids: DEFAULT_PIDS,
            },
            default_image,
            allowed_images: self.list(env_vars::WORKSPACE_ALLOWED_IMAGES),
            registries: self.registries(),
            pulled_image_retention: chrono::Duration::from_std(Duration::from_secs_f64(
                self.number(env_vars::WORKSPACE_PULLED_IMAGE_RETENTION_DAYS, 0.00001, 3650.0) * SECONDS_OF_A_DAY,
            ))
            .unwrap_or(chrono::Duration::MAX),
            workspace_defaults: WorkspaceDefaults {
                environment: self.pairs(env_vars::WORKSPACE_ENVIRONMENT).into_iter().collect(),
                authorities: self.optional(env_vars::WORKSPACE_CA_FILE, authorities),
            },
            audit: self.audit(),
            fault: self.optional(env_vars::EMERGENT_FAULT, |text| {
                let hosting = HostStep::ALL.iter().map(|step| step.name());
                FaultPoint::among(emergent_core::step_names().chain(hosting), text).map_err(|error| error.to_string())
            }),
        }
    }

    /// The images that are kept ready; the default image where none is named.
    fn warm_pool_images(&mut self, default_image: &ImageRef) -> Vec<ImageRef> {
        let mut images = Vec::new();
        for text in self.list(env_vars::WORKSPACE_WARM_POOL_IMAGES) {
            match text.parse::<ImageRef>() {
                Ok(image) if images.contains(&image) => {}
                Ok(image) => images.push(image),
                Err(error) => self.conflict(format!("WORKSPACE_WARM_POOL_IMAGES has {text:?}, and {error}")),
            }
        }
        if images.is_empty() { vec![default_image.clone()] } else { images }
    }

    fn audit(&mut self) -> AuditConfig {
        let levels =
            [("none", ArgumentLevel::None), ("names", ArgumentLevel::Names), ("commands", ArgumentLevel::Commands)];
        AuditConfig {
            arguments: self.word(env_vars::WORKSPACE_AUDIT_ARGUMENTS, &levels),
            retention: self.days(env_vars::WORKSPACE_AUDIT_RETENTION_DAYS),
            most_rows: self.whole(env_vars::WORKSPACE_AUDIT_MAX_ROWS, 1_000, 1_000_000_000),
            usage_interval: Duration::from_secs(self.whole(env_vars::WORKSPACE_USAGE_INTERVAL_SEC, 1, 86_400)),
            usage_retention: self.days(env_vars::WORKSPACE_USAGE_RETENTION_DAYS),
        }
    }

    fn days(&mut self, variable: &'static Variable) -> Duration {
        Duration::from_secs(24 * 60 * 60 * self.whole::<u64>(variable, 1, 3650))
    }

    fn firecracker(&mut self) -> FirecrackerSettings {
        let url = self.optional(env_vars::WORKSPACE_FIRECRACKER_URL, advertise_url);
        let token = self.text(env_vars::WORKSPACE_FIRECRACKER_TOKEN).map(SecretString::from);
        let base = self.absolute(env_vars::WORKSPACE_FIRECRACKER_DIR);
        let driver = self.parsed(env_vars::WORKSPACE_FIRECRACKER_DRIVER);
        let jail = self.parsed(env_vars::WORKSPACE_FIRECRACKER_JAILER);
        let network = self.parsed(env_vars::WORKSPACE_FIRECRACKER_NETWORK);
        let template_snapshots = self.whole(env_vars::WORKSPACE_FIRECRACKER_TEMPLATE_SNAPSHOTS, 0, 1000);
        match (url, base) {
            (Some(_), Some(_)) => {
                self.conflict(
                    "WORKSPACE_FIRECRACKER_URL names a manager elsewhere and WORKSPACE_FIRECRACKER_DIR machines of this \
                     server's own; set one of them"
                        .to_owned(),
                );
                FirecrackerSettings::Absent
            }
            (Some(url), None) => FirecrackerSettings::Remote { url, token },
            (None, Some(base)) => {
                let manager = ManagerConfig { template_snapshots, ..ManagerConfig::new(base) };
                FirecrackerSettings::Local(Box::new(Host { manager, driver, jail, network }))
            }
            (None, None) => FirecrackerSettings::Absent,
        }
    }

    /// Unset is gVisor; empty or `auto` chooses by itself.
    fn default_provider(&mut self) -> Option<ProviderKind> {
        let variable = env_vars::WORKSPACE_DEFAULT_PROVIDER;
        match self.settings.given(variable) {
            Some(("" | "auto", _)) => None,
            _ => Some(self.parsed(variable)),
        }
    }

    fn docker(&mut self) -> DockerSettings {
        let isolation =
            [("any", Isolation::Container), ("gvisor", Isolation::Gvisor), ("hardware", Isolation::Hardware)];
        DockerSettings {
            host: self.docker_host(),
            runtime: self.required(env_vars::WORKSPACE_GVISOR_RUNTIME, |text| Ok(text.to_owned())),
            require_isolation: self.word(env_vars::WORKSPACE_REQUIRE_ISOLATION, &isolation),
            network_name: self.text(env_vars::WORKSPACE_NETWORK_NAME),
            private_registries: self.list(env_vars::WORKSPACE_PRIVATE_REGISTRIES),
            network_allow: self
                .optional(env_vars::WORKSPACE_NETWORK_ALLOW, |text| {
                    let ranges = text.split(',').map(str::trim).filter(|range| !range.is_empty());
                    ranges.map(|range| range.parse::<IpNet>().map_err(|error| format!("{range}: {error}"))).collect()
                })
                .unwrap_or_default(),
        }
    }

    /// The engine's address. Whoever asks for TLS on the way there gets none silently taken away.
    fn docker_host(&mut self) -> Option<String> {
        let host = self.text(env_vars::DOCKER_HOST);
        let wants_tls = self.text(env_vars::DOCKER_TLS_VERIFY).is_some_and(|value| value != "0");
        if let Some(host) = &host
            && wants_tls
            && ["tcp://", "http://", "https://"].iter().any(|scheme| host.starts_with(scheme))
        {
            self.conflict(format!(
                "DOCKER_TLS_VERIFY asks for TLS to DOCKER_HOST {host}, and this release speaks plain HTTP to Docker: \
                 control of that host would travel in the clear. Use Docker's Unix socket (unix:///path), forward it by \
                 SSH (`ssh -N -L /run/docker-remote.sock:/var/run/docker.sock HOST`, then \
                 DOCKER_HOST=unix:///run/docker-remote.sock) or through a TLS tunnel, and unset DOCKER_TLS_VERIFY"
            ));
        }
        host
    }

    fn registries(&mut self) -> Vec<emergent_core::RegistryLogin> {
        let Some(path) = self.path(env_vars::WORKSPACE_REGISTRY_AUTH_FILE) else { return Vec::new() };
        registries::read(&path).unwrap_or_else(|reason| {
            self.faults.push(Fault::File { path, reason });
            Vec::new()
        })
    }

    /// Settings that this release only checks.
    fn without_effect(&mut self) -> Vec<&'static str> {
        self.optional(env_vars::GITHUB_APP_ENCRYPTION_KEY, |text| {
            let is_key = text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
            if is_key { Ok(()) } else { Err(String::new()) }
        });
        let only_checked =
            [env_vars::E2B_API_KEY, env_vars::E2B_DOMAIN, env_vars::E2B_API_URL, env_vars::GITHUB_APP_ENCRYPTION_KEY];
        let given = only_checked.into_iter().filter(|variable| self.value(variable).is_some());
        given.map(|variable| variable.name).collect()
    }

    // --- One setting ---

    /// Returns the given value and its source. An empty value is as good as none.
    fn value(&self, variable: &Variable) -> Option<(String, Source)> {
        let (value, source) = self.settings.given(variable)?;
        (!value.is_empty()).then(|| (value.to_owned(), source.clone()))
    }

    fn optional<T>(&mut self, variable: &'static Variable, read: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        let (value, source) = self.value(variable)?;
        match read(value.trim()) {
            Ok(value) => Some(value),
            Err(reason) => {
                self.faults.push(Fault::malformed(variable, Some(&value), &reason, &source));
                None
            }
        }
    }

    /// Returns the given value, or the default. A malformed value is noted, and the default goes on in its place.
    fn required<T>(&mut self, variable: &'static Variable, read: impl Fn(&str) -> Result<T, String>) -> T {
        self.optional(variable, &read).unwrap_or_else(|| match read(variable.default) {
            Ok(value) => value,
            Err(reason) => unreachable!("the default of {} is malformed: {reason}", variable.name),
        })
    }

    fn parsed<T: FromStr<Err: std::fmt::Display>>(&mut self, variable: &'static Variable) -> T {
        self.required(variable, |text| text.parse().map_err(|error: T::Err| error.to_string()))
    }

    fn boolean(&mut self, variable: &'static Variable) -> bool {
        self.word(variable, &[("true", true), ("false", false)])
    }

    fn word<T: Copy>(&mut self, variable: &'static Variable, words: &[(&str, T)]) -> T {
        self.required(variable, |text| {
            let found = words.iter().find(|(word, _)| text.eq_ignore_ascii_case(word));
            found.map(|(_, value)| *value).ok_or_else(String::new)
        })
    }

    fn number(&mut self, variable: &'static Variable, least: f64, most: f64) -> f64 {
        self.required(variable, |text| {
            let number = text.parse::<f64>().ok().filter(|number| (least..=most).contains(number));
            number.ok_or_else(String::new)
        })
    }

    /// A time in days and parts of a day, from a minute and a half to ten years.
    fn parts_of_days(&mut self, variable: &'static Variable) -> chrono::Duration {
        let time = Duration::from_secs_f64(self.number(variable, 0.001, 3650.0) * SECONDS_OF_A_DAY);
        chrono::Duration::from_std(time).unwrap_or(chrono::Duration::MAX)
    }

    fn whole<T: TryFrom<u64>>(&mut self, variable: &'static Variable, least: u64, most: u64) -> T {
        self.required(variable, |text| {
            let number = text.parse::<u64>().ok().filter(|number| (least..=most).contains(number));
            number.and_then(|number| T::try_from(number).ok()).ok_or_else(String::new)
        })
    }

    /// Reads the amount of memory or disk that a workspace may have, in bytes.
    fn size(&mut self, variable: &'static Variable) -> u64 {
        self.bytes(variable, 16 << 20, 1 << 50)
    }

    fn bytes<T: TryFrom<u64>>(&mut self, variable: &'static Variable, least: u64, most: u64) -> T {
        self.required(variable, |text| match text.parse::<ByteSize>() {
            Ok(ByteSize(bytes)) if (least..=most).contains(&bytes) => {
                T::try_from(bytes).map_err(|_| "it is out of range".to_owned())
            }
            Ok(_) => Err("it is out of range".to_owned()),
            Err(error) => Err(error.to_string()),
        })
    }

    fn text(&mut self, variable: &'static Variable) -> Option<String> {
        self.optional(variable, |text| Ok(text.to_owned()))
    }

    fn path(&mut self, variable: &'static Variable) -> Option<PathBuf> {
        self.optional(variable, |text| Ok(PathBuf::from(text)))
    }

    fn absolute(&mut self, variable: &'static Variable) -> Option<PathBuf> {
        self.optional(variable, |text| {
            Some(PathBuf::from(text)).filter(|path| path.is_absolute()).ok_or_else(|| "it is relative".to_owned())
        })
    }

    fn list(&mut self, variable: &'static Variable) -> Vec<String> {
        let items = self.text(variable).unwrap_or_default();
        items.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect()
    }

    /// Variables and their values.
    /// The variables of all projects, and of some.
    fn install_environment(&mut self) -> Vec<InstallVariable> {
        let of_all = self.pairs(env_vars::EMERGENT_MCP_INSTALL_ENV).into_iter();
        let mut variables: Vec<_> =
            of_all.map(|(name, value)| InstallVariable { project: None, name, value }).collect();
        let read = |pair: &str| {
            let (project, pair) = pair.split_once(':').filter(|(project, _)| !project.is_empty())?;
            let (name, value) = pair.split_once('=').filter(|(name, _)| !name.is_empty())?;
            Some(InstallVariable { project: Some(project.to_owned()), name: name.to_owned(), value: value.to_owned() })
        };
        let of_some = self.optional(env_vars::EMERGENT_MCP_INSTALL_ENV_OF_PROJECTS, |text| {
            let parts = text.split(',').map(str::trim).enumerate().filter(|(_, part)| !part.is_empty());
            let read = |(at, part): (usize, &str)| {
                read(part).ok_or_else(|| format!("its part {} is not PROJECT:NAME=VALUE", at + 1))
            };
            parts.map(read).collect::<Result<Vec<_>, _>>()
        });
        variables.extend(of_some.into_iter().flatten());
        variables
    }

    fn pairs(&mut self, variable: &'static Variable) -> Vec<(String, String)> {
        let read = |pair: &str| {
            let (name, value) = pair.split_once('=').filter(|(name, _)| !name.is_empty())?;
            Some((name.to_owned(), value.to_owned()))
        };
        let pairs = self.optional(variable, |text| {
            let pairs = text.split(',').map(str::trim).filter(|pair| !pair.is_empty());
            pairs.map(|pair| read(pair).ok_or_else(|| format!("{pair:?} is not NAME=VALUE"))).collect()
        });
        pairs.unwrap_or_default()
    }

    fn conflict(&mut self, reason: String) {
        self.faults.push(Fault::Conflict(reason));
    }
}

/// The certificates of authorities in a PEM file.
fn authorities(path: &str) -> Result<String, String> {
    let pem = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    let certificates = reqwest::Certificate::from_pem_bundle(pem.as_bytes()).map_err(|error| error.to_string())?;
    if certificates.is_empty() { Err("there is no certificate in it".to_owned()) } else { Ok(pem) }
}

/// An address that others can send requests to, without anything after the host and port.
fn advertise_url(text: &str) -> Result<String, String> {
    let url: reqwest::Url = text.parse().map_err(|error| format!("{error}"))?;
    let plain = url.path() == "/" && url.query().is_none() && url.username().is_empty() && url.password().is_none();
    if matches!(url.scheme(), "http" | "https") && url.has_host() && plain {
        return Ok(text.trim_end_matches('/').to_owned());
    }
    Err("it is not http or https, a host and perhaps a port".to_owned())
}

#[cfg(test)]
mod tests;
