//! The requests that register, change or call hosted MCP servers.

use std::{collections::BTreeMap, fmt, time::Duration};

use emergent_mcp_hosting::{
    LimitsChange, McpPackage, McpShare, NewServer, PackageRegistry, RestartPolicy, ServerUpdate, VolumeRequest,
};
use emergent_provider::ImageRef;
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{MapAccess, Visitor, value::MapAccessDeserializer},
};
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};

use crate::{
    facts::Arguments,
    http::{
        check::{Check, Faults},
        problem::{ProblemKind, Refusal},
    },
    resources::workspaces::{request::RequestedLimits, view::Network},
};

/// The time that a call waits for the server to run when the request does not say, in seconds.
const DEFAULT_WAIT: u64 = 60;

/// The properties of a hosted MCP server. Everything but the name of a new server may be left out: a property that is
/// left out gets its default value, or stays unchanged.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct McpServerRequest {
    /// The server's name, which no other server of the project has: 1 to 63 of a-z, 0-9 and -. Cannot be changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 63, pattern = "^[a-z0-9][a-z0-9-]*$", example = "clock")]
    pub name: Option<String>,
    /// The image; the default image has Python, and packages of npm's and Python's registries run in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 255)]
    pub image: Option<String>,
    /// The program and its arguments; with a package, only the arguments. Left out or empty: the image's own program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cmd: Option<Vec<String>>,
    /// The directory in which the program runs; left out: the image's own directory, or `/workspace`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workdir: Option<String>,
    /// Whether the program speaks MCP on its standard input and output (the default). Otherwise it listens on `port`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdio_bridge: Option<bool>,
    /// The port on which an HTTP-based server listens, on its own loopback interface or any other.
    #[serde(
        default,
        deserialize_with = "emergent_guest_proto::whole::option",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(minimum = 1)]
    pub port: Option<u16>,
    /// The path of an HTTP-based server's MCP endpoint; `/mcp` when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// A package that is installed first; the server then runs without a network unless `network` says otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub package: Option<PackageRequest>,
    /// The action when the server ends by itself; `always` when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart_policy: Option<RestartPolicyName>,
    /// Whether sessions share a process of the server; `per_session` when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sharing: Option<SharingName>,
    /// Whether the server's processes run as root inside rather than as uid 1000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_as_root: Option<bool>,
    /// The whole environment of the server's processes. Kept encrypted and never shown again.
    #[serde(default, alias = "env", skip_serializing_if = "Option::is_none")]
    pub environment: Option<BTreeMap<String, String>>,
    /// All directories that survive restarts and changes, by name: the path inside for one of the server's own, or a
    /// workspace whose files the server sees. A directory that a change leaves out is deleted, or is the workspace's
    /// alone again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volumes: Option<BTreeMap<String, VolumeName>>,
    /// The resource limits; 0.5 CPU cores, 512 MiB of memory and 1 GiB of disk when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource_limits: Option<RequestedLimits>,
    /// The networks that the server may reach; `outbound` when left out, and `none` with a package.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<Network>,
    /// How long a call may take, in milliseconds; 30,000 when left out.
    #[serde(
        default,
        deserialize_with = "emergent_guest_proto::whole::option",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(minimum = 1, maximum = 3_600_000)]
    pub call_timeout_ms: Option<u64>,
}

/// A volume of a hosted server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(untagged)]
#[schema(as = McpVolume)]
pub enum VolumeName {
    /// A directory of the server's own: its absolute path inside.
    Own(String),
    /// The `/workspace` of a workspace of the same project, on the same Docker engine.
    Workspace(SharedWorkspace),
}

/// A workspace whose `/workspace` a hosted server sees.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SharedWorkspace {
    /// The workspace's id or name; shown as its id.
    #[schema(min_length = 1, max_length = 255)]
    pub workspace: String,
    /// The path of the workspace's files inside the server; absolute.
    pub path: String,
    /// Whether the server may write there; `ro` when left out.
    #[serde(default)]
    pub mode: ShareMode,
}

/// Whether a hosted server may write to a workspace that it shares.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ShareMode {
    /// The server may only read.
    #[default]
    Ro,
    /// The server may read and write.
    Rw,
}

/// A package from a registry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PackageRequest {
    /// The registry of the package.
    pub registry: RegistryName,
    /// The package, preferably with its version: `@scope/name@1.2.3` for npm, `name==1.2.3` for Python.
    #[schema(min_length = 1, max_length = 300)]
    pub requirement: String,
    /// Further requirements that pin the package's dependencies: `name==1.2.3` for Python (constraints), `name@1.2.3`
    /// for npm.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub constraints: Vec<String>,
}

/// A registry of packages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RegistryName {
    /// npm's registry.
    Npm,
    /// Python's registry.
    Pypi,
}

/// The action when a server has ended by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RestartPolicyName {
    /// The server is started again.
    Always,
    /// The server is started again unless it ended with exit code 0.
    OnFailure,
    /// The server is not started again.
    Never,
}

/// The sharing of a server's processes among sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SharingName {
    /// Each session has a process of its own.
    PerSession,
    /// All sessions share one process.
    Shared,
}

/// A method call.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct McpCall {
    /// The method, such as `tools/call`.
    #[schema(min_length = 1, max_length = 200, example = "tools/list")]
    pub method: String,
    /// The method's parameters: an object, passed on unchanged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub params: Option<Box<RawValue>>,
    /// The time limit of the call, in milliseconds; the server's own `call_timeout_ms` when left out.
    #[serde(
        default,
        deserialize_with = "emergent_guest_proto::whole::option",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(minimum = 1, maximum = 3_600_000)]
    pub timeout_ms: Option<u64>,
}

/// The time to wait for a server.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct McpWaitQuery {
    /// The seconds to wait until the server runs or is known not to run; 60 when left out, 0 does not wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(minimum = 0, maximum = 900)]
    pub wait_seconds: Option<u64>,
}

// === impl McpServerRequest ===

impl McpServerRequest {
    /// Turns the request into a server to register.
    pub(super) fn into_new(mut self) -> Result<NewServer, Refusal> {
        let name = self.name.take();
        let name = name.ok_or_else(|| Refusal::of_field(ProblemKind::InvalidRequest, "name", "it is missing"))?;
        Ok(NewServer { name, what: self.into_update()? })
    }

    /// Turns the request into a change of an existing server.
    pub(super) fn into_update(self) -> Result<ServerUpdate, Refusal> {
        if self.name.is_some() {
            return Err(Refusal::of_field(ProblemKind::InvalidValue, "name", "it cannot be changed"));
        }
        let image = self.image.as_deref().map(str::parse::<ImageRef>).transpose();
        let image = image.map_err(|error| Refusal::of_field(ProblemKind::InvalidValue, "image", error.to_string()))?;
        let limits = self.resource_limits.unwrap_or_default();
        Ok(ServerUpdate {
            image,
            cmd: self.cmd,
            workdir: self.workdir,
            stdio_bridge: self.stdio_bridge,
            port: self.port,
            path: self.path,
            package: self.package.map(McpPackage::from),
            restart_policy: self.restart_policy.map(RestartPolicy::from),
            shared: self.sharing.map(|sharing| sharing == SharingName::Shared),
            run_as_root: self.run_as_root,
            environment: self.environment,
            volumes: self
                .volumes
                .map(|volumes| volumes.into_iter().map(|(name, volume)| (name, volume.into())).collect()),
            limits: LimitsChange {
                cpu: limits.cpu,
                memory_bytes: limits.memory.map(|size| size.0),
                disk_bytes: limits.disk.map(|size| size.0),
                pids: limits.pids,
            },
            network: self.network.map(Into::into),
            call_timeout: self.call_timeout_ms.map(Duration::from_millis),
        })
    }
}

impl Check for McpServerRequest {
    fn check(&self, faults: &mut Faults) {
        if let Some(environment) = &self.environment {
            faults.environment("environment", environment);
        }
        for argument in self.cmd.iter().flatten() {
            faults.argument("cmd", argument);
        }
        faults.range("call_timeout_ms", self.call_timeout_ms, 1..=3_600_000);
    }

    fn arguments(&self, kept: &mut Arguments) {
        kept.optional("name", self.name.as_ref());
        kept.optional("image", self.image.as_ref());
        kept.optional("package", self.package.as_ref().map(|package| &package.requirement));
    }
}

impl Check for McpCall {
    fn check(&self, faults: &mut Faults) {
        faults.not_empty("method", &self.method);
        faults.range("timeout_ms", self.timeout_ms, 1..=3_600_000);
    }

    fn arguments(&self, kept: &mut Arguments) {
        kept.name("method", &self.method);
    }
}

impl Check for McpWaitQuery {
    fn check(&self, faults: &mut Faults) {
        faults.range("wait_seconds", self.wait_seconds, 0..=900);
    }
}

impl McpWaitQuery {
    /// Returns the time to wait.
    pub(super) fn wait(self) -> Duration {
        Duration::from_secs(self.wait_seconds.unwrap_or(DEFAULT_WAIT))
    }
}

impl<'de> Deserialize<'de> for VolumeName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;

        impl<'de> Visitor<'de> for Reader {
            type Value = VolumeName;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a path inside, or {\"workspace\", \"path\", \"mode\"}")
            }

            fn visit_str<E>(self, path: &str) -> Result<VolumeName, E> {
                Ok(VolumeName::Own(path.to_owned()))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<VolumeName, A::Error> {
                SharedWorkspace::deserialize(MapAccessDeserializer::new(map)).map(VolumeName::Workspace)
            }
        }

        deserializer.deserialize_any(Reader)
    }
}

impl From<VolumeName> for VolumeRequest {
    fn from(volume: VolumeName) -> Self {
        match volume {
            VolumeName::Own(path) => Self::Own { path },
            VolumeName::Workspace(SharedWorkspace { workspace, path, mode }) => {
                Self::Workspace { workspace, path, read_only: mode == ShareMode::Ro }
            }
        }
    }
}

impl From<McpShare> for VolumeName {
    fn from(share: McpShare) -> Self {
        let mode = if share.read_only { ShareMode::Ro } else { ShareMode::Rw };
        Self::Workspace(SharedWorkspace { workspace: share.workspace.to_string(), path: share.path, mode })
    }
}

impl From<PackageRequest> for McpPackage {
    fn from(package: PackageRequest) -> Self {
        let registry = match package.registry {
            RegistryName::Npm => PackageRegistry::Npm,
            RegistryName::Pypi => PackageRegistry::Pypi,
        };
        Self { registry, requirement: package.requirement, constraints: package.constraints }
    }
}

impl From<McpPackage> for PackageRequest {
    fn from(package: McpPackage) -> Self {
        let registry = match package.registry {
            PackageRegistry::Npm => RegistryName::Npm,
            PackageRegistry::Pypi => RegistryName::Pypi,
        };
        Self { registry, requirement: package.requirement, constraints: package.constraints }
    }
}

impl From<RestartPolicyName> for RestartPolicy {
    fn from(name: RestartPolicyName) -> Self {
        match name {
            RestartPolicyName::Always => Self::Always,
            RestartPolicyName::OnFailure => Self::OnFailure,
            RestartPolicyName::Never => Self::Never,
        }
    }
}

impl From<RestartPolicy> for RestartPolicyName {
    fn from(policy: RestartPolicy) -> Self {
        match policy {
            RestartPolicy::Always => Self::Always,
            RestartPolicy::OnFailure => Self::OnFailure,
            RestartPolicy::Never => Self::Never,
        }
    }
}
