//! The checks of a caller's request for a server, and the defaults for the settings that it leaves open.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use emergent_core::Images;
use emergent_store::{McpPackage, McpServerSpec, McpShare, RestartPolicy};

use crate::{HostingConfig, HostingError, ServerUpdate, install};

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
/// The longest command line, all arguments together.
const COMMAND: usize = 128 * 1024;
const VOLUMES: usize = 16;
const CONSTRAINTS: usize = 1_000;
/// The constraints of a package together, in bytes: lists have them whole.
const CONSTRAINTS_BYTES: usize = 64 * 1024;
const LONGEST_CALL: Duration = Duration::from_secs(60 * 60);

/// The default settings of a server.
pub(crate) fn defaults(config: &HostingConfig) -> McpServerSpec {
    McpServerSpec {
        image: config.default_image.to_string(),
        cmd: None,
        workdir: None,
        stdio_bridge: true,
        port: None,
        path: None,
        package: None,
        restart_policy: RestartPolicy::Always,
        shared: false,
        run_as_root: false,
        volumes: BTreeMap::new(),
        shares: BTreeMap::new(),
        cpu: 0.5,
        memory_bytes: 512 * MIB,
        disk_bytes: GIB,
        pids: 256,
        network: "outbound".to_owned(),
        call_timeout_ms: 30_000,
    }
}

/// Checks a server's name, which is also a prefix of tools' names.
pub(crate) fn name(text: &str) -> Result<(), HostingError> {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if (1..=63).contains(&text.len()) && text.bytes().all(allowed) && !text.starts_with('-') {
        return Ok(());
    }
    Err(HostingError::invalid("name", "it takes 1 to 63 of the characters a-z, 0-9 and -, and does not begin with -"))
}

/// The volumes that were asked for, with the workspaces that they name.
#[derive(Debug, Default)]
pub(crate) struct Volumes {
    pub(crate) own: BTreeMap<String, String>,
    pub(crate) shares: BTreeMap<String, McpShare>,
}

/// The settings of a server after an update; `volumes` are those of the update.
pub(crate) fn apply(
    mut spec: McpServerSpec,
    update: &ServerUpdate,
    volumes: Option<Volumes>,
    images: &Images,
) -> Result<McpServerSpec, HostingError> {
    if let Some(image) = &update.image {
        if !images.allow(image) {
            return Err(HostingError::ImageNotAllowed(image.clone()));
        }
        spec.image = image.to_string();
    }
    if let Some(cmd) = &update.cmd {
        spec.cmd = (!cmd.is_empty()).then(|| cmd.clone());
    }
    if let Some(package) = &update.package {
        spec.package = Some(package.clone());
        // A package needs the network to be installed, and most need none afterwards.
        spec.network = "none".to_owned();
    }
    if let Some(network) = update.network {
        spec.network = network.as_str().to_owned();
    }
    if let Some(timeout) = update.call_timeout {
        spec.call_timeout_ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
    }
    let limits = update.limits;
    spec.workdir = update.workdir.clone().or(spec.workdir);
    spec.stdio_bridge = update.stdio_bridge.unwrap_or(spec.stdio_bridge);
    spec.port = update.port.or(spec.port);
    spec.path = update.path.clone().or(spec.path);
    spec.restart_policy = update.restart_policy.unwrap_or(spec.restart_policy);
    spec.shared = update.shared.unwrap_or(spec.shared);
    spec.run_as_root = update.run_as_root.unwrap_or(spec.run_as_root);
    if let Some(Volumes { own, shares }) = volumes {
        (spec.volumes, spec.shares) = (own, shares);
    }
    spec.cpu = limits.cpu.unwrap_or(spec.cpu);
    spec.memory_bytes = limits.memory_bytes.unwrap_or(spec.memory_bytes);
    spec.disk_bytes = limits.disk_bytes.unwrap_or(spec.disk_bytes);
    spec.pids = limits.pids.unwrap_or(spec.pids);
    check(&spec)?;
    Ok(spec)
}

fn check(spec: &McpServerSpec) -> Result<(), HostingError> {
    let invalid = |field: &str, message: &str| Err(HostingError::invalid(field, message));
    let arguments = spec.cmd.iter().flatten();
    if arguments.clone().map(String::len).sum::<usize>() > COMMAND || arguments.clone().any(|text| text.contains('\0'))
    {
        return invalid("cmd", "it takes at most 128 KiB, without NUL bytes");
    }
    if spec.package.is_none() && spec.cmd.as_ref().is_some_and(|cmd| cmd.first().is_none_or(String::is_empty)) {
        return invalid("cmd", "it begins with the program's name");
    }
    match (spec.stdio_bridge, spec.port) {
        (true, Some(_)) => return invalid("port", "only a server with stdio_bridge = false listens on a port"),
        (false, None | Some(0)) => {
            return invalid("port", "a server with stdio_bridge = false needs the port that it listens on");
        }
        (true, None) | (false, Some(_)) => {}
    }
    if !is_absolute(spec.path.as_deref()) {
        return invalid("path", "it begins with /");
    }
    if !is_absolute(spec.workdir.as_deref()) {
        return invalid("workdir", "it is an absolute path");
    }
    if !(0.1..=256.0).contains(&spec.cpu) {
        return invalid("resource_limits.cpu", "it takes 0.1 to 256 cores");
    }
    if !(64 * MIB..=16 * 1024 * GIB).contains(&spec.memory_bytes) {
        return invalid("resource_limits.memory", "it takes 64 MiB to 16 TiB");
    }
    if !(64 * MIB..=1024 * 1024 * GIB).contains(&spec.disk_bytes) {
        return invalid("resource_limits.disk", "it takes 64 MiB to 1 PiB");
    }
    if !(64..=1_000_000).contains(&spec.pids) {
        return invalid("resource_limits.pids", "it takes 64 to 1000000");
    }
    if !(1..=u64::try_from(LONGEST_CALL.as_millis()).unwrap_or(u64::MAX)).contains(&spec.call_timeout_ms) {
        return invalid("call_timeout_ms", "it takes 1 to 3600000");
    }
    volumes(spec)?;
    spec.package.as_ref().map_or(Ok(()), package)
}

fn volumes(spec: &McpServerSpec) -> Result<(), HostingError> {
    let shares = spec.shares.iter().map(|(name, share)| (name, &share.path));
    let volumes: Vec<_> = spec.volumes.iter().chain(shares).collect();
    if volumes.len() > VOLUMES {
        return Err(HostingError::invalid("volumes", "there are more than 16"));
    }
    let mut paths = BTreeSet::new();
    for (name, path) in volumes {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        let field = format!("volumes.{name}");
        if !(1..=64).contains(&name.len()) || !name.bytes().all(allowed) || name == install::VOLUME {
            let message = "a volume's name takes 1 to 64 of A-Z a-z 0-9 _ -, and is not `packages`";
            return Err(HostingError::invalid(field, message));
        }
        let parts = || path.split('/').skip(1);
        let plain = path.starts_with('/') && parts().all(|part| !part.is_empty() && part != "." && part != "..");
        let taken = ["proc", "sys", "dev", "workspace", ".emergent"];
        let own = ["/var/lib/emergent", install::DIRECTORY, install::NODE_DIRECTORY];
        let own = own.iter().any(|own| path.starts_with(own));
        if !plain || path.contains(['\0', ':']) || parts().next().is_some_and(|first| taken.contains(&first)) || own {
            let message = "a volume's path is absolute, without . and .., and not one of the sandbox's own";
            return Err(HostingError::invalid(field, message));
        }
        if !paths.insert(path) {
            return Err(HostingError::invalid(field, "another volume has this path"));
        }
    }
    Ok(())
}

fn package(package: &McpPackage) -> Result<(), HostingError> {
    let texts = std::iter::once(&package.requirement).chain(&package.constraints);
    if package.constraints.len() > CONSTRAINTS {
        return Err(HostingError::invalid("package.constraints", "there are more than 1000"));
    }
    if package.constraints.iter().map(String::len).sum::<usize>() > CONSTRAINTS_BYTES {
        return Err(HostingError::invalid("package.constraints", "they take more than 64 KiB in all"));
    }
    for text in texts {
        // Whatever begins with - would be an option of the installer.
        let plain = (1..=300).contains(&text.len()) && !text.starts_with('-') && !text.chars().any(char::is_control);
        if !plain {
            let message = "a requirement takes 1 to 300 printable characters and does not begin with -";
            return Err(HostingError::invalid("package", message));
        }
    }
    Ok(())
}

fn is_absolute(path: Option<&str>) -> bool {
    path.is_none_or(|path| path.starts_with('/') && !path.contains('\0'))
}

/// Checks an environment.
pub(crate) fn environment(variables: &BTreeMap<String, String>) -> Result<(), HostingError> {
    let mut size = 0;
    for (name, value) in variables {
        let field = || format!("environment.{name}");
        if name.is_empty() || name.len() > 256 || name.contains(['=', '\0']) {
            return Err(HostingError::invalid(field(), "a variable's name takes 1 to 256 bytes, without = and NUL"));
        }
        if value.contains('\0') || name.len() + value.len() > 128 * 1024 - 2 {
            return Err(HostingError::invalid(field(), "a variable takes at most 128 KiB, without NUL"));
        }
        size += name.len() + value.len();
    }
    if variables.len() > 256 || size > 1024 * 1024 {
        return Err(HostingError::invalid("environment", "it takes at most 256 variables and 1 MiB"));
    }
    Ok(())
}
