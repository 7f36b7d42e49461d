//! The engine's facts: its version, architecture and runtimes.

use std::path::PathBuf;

use bollard::models::{SystemInfo, SystemVersion};
use emergent_provider::Isolation;

/// The oldest API that is driven: Docker Engine 20.10's.
const OLDEST_API: (u32, u32) = (1, 41);

/// The engine's facts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Facts {
    /// The engine's release, such as `20.10.24`.
    pub(crate) version: String,
    /// The version of its API, such as `1.41`.
    pub(crate) api_version: String,
    /// The engine's processor architecture, as `uname -m` says it.
    pub(crate) architecture: String,
    /// The processor cores of its machine.
    pub(crate) cores: Option<u32>,
    /// The runtime of our containers.
    pub(crate) runtime: Runtime,
    /// The directory of the engine's files, on the engine's own machine.
    pub(crate) root_dir: Option<PathBuf>,
    /// Whether it can have the kernel filter a container's calls.
    pub(crate) filters_calls: bool,
}

/// A runtime of our containers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Runtime {
    /// gVisor, under the name that it is registered by.
    Gvisor(String),
    /// One that shares the host's kernel: the engine's default, since gVisor is not registered, or what was named in
    /// gVisor's place.
    Standard(String),
}

// === impl Facts ===

impl Facts {
    /// Puts together what the engine says, with the name that gVisor would have.
    pub(crate) fn new(version: SystemVersion, info: SystemInfo, gvisor: &str) -> Self {
        let runtime = match info.runtimes.as_ref().and_then(|runtimes| runtimes.get(gvisor)) {
            Some(named) if is_standard(gvisor) || named.path.as_deref().is_some_and(is_standard) => {
                Runtime::Standard(gvisor.to_owned())
            }
            Some(_) => Runtime::Gvisor(gvisor.to_owned()),
            None => Runtime::Standard(info.default_runtime.unwrap_or_else(|| "runc".to_owned())),
        };
        Self {
            version: version.version.unwrap_or_default(),
            api_version: version.api_version.unwrap_or_default(),
            architecture: info.architecture.unwrap_or_default(),
            cores: info.ncpu.and_then(|cores| u32::try_from(cores).ok()),
            root_dir: info.docker_root_dir.map(PathBuf::from),
            filters_calls: info.security_options.iter().flatten().any(|option| option.contains("name=seccomp")),
            runtime,
        }
    }

    /// Whether the engine's API is old enough to be of no use. One that cannot be read is taken for new.
    pub(crate) fn is_too_old(&self) -> bool {
        let numbers = self.api_version.split_once('.').and_then(|(major, minor)| {
            let numbers: (u32, u32) = (major.parse().ok()?, minor.parse().ok()?);
            Some(numbers)
        });
        numbers.is_some_and(|numbers| numbers < OLDEST_API)
    }
}

// === impl Runtime ===

impl Runtime {
    /// The name that the engine has for it.
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Gvisor(name) | Self::Standard(name) => name,
        }
    }

    /// How strongly it keeps containers apart from the host.
    pub(crate) fn isolation(&self) -> Isolation {
        match self {
            Self::Gvisor(_) => Isolation::Gvisor,
            Self::Standard(_) => Isolation::Container,
        }
    }

    /// Returns the warning about a runtime that is weaker than gVisor; `gvisor` is the name that gVisor would have.
    pub(crate) fn warning(&self, gvisor: &str) -> Option<String> {
        match self {
            Self::Gvisor(_) => None,
            Self::Standard(name) if name == gvisor => Some(format!(
                "security: WORKSPACE_GVISOR_RUNTIME names {name:?}, which is not gVisor: workspaces share the host's \
                 kernel; install gVisor (`runsc install`, then restart Docker) and unset it"
            )),
            Self::Standard(name) => Some(format!(
                "security: Docker has no runtime called {gvisor:?}, so workspaces share the host's kernel under \
                 {name:?}; install gVisor (`runsc install`, then restart Docker), or set \
                 WORKSPACE_REQUIRE_ISOLATION=gvisor to refuse this"
            )),
        }
    }
}

/// Whether a runtime's name or program is known to share the host's kernel, whatever it is registered as.
fn is_standard(name: &str) -> bool {
    let program = name.rsplit_once('/').map_or(name, |(_, program)| program);
    ["runc", "crun", "youki"].contains(&program)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(api_version: &str) -> Facts {
        let runtime = Runtime::Standard("runc".to_owned());
        let text = String::new();
        let (version, api_version) = (text.clone(), api_version.to_owned());
        Facts { version, api_version, architecture: text, cores: None, runtime, root_dir: None, filters_calls: false }
    }

    #[test]
    fn what_is_named_in_gvisors_place_is_not_taken_for_gvisor() {
        let of = |name: &str, path: &str| {
            let runtime = bollard::models::Runtime { path: Some(path.to_owned()), ..Default::default() };
            let info = SystemInfo { runtimes: Some([(name.to_owned(), runtime)].into()), ..SystemInfo::default() };
            Facts::new(SystemVersion::default(), info, name).runtime
        };
        assert_eq!(of("runsc", "/usr/bin/runsc"), Runtime::Gvisor("runsc".to_owned()));
        for (name, path) in [("runc", "runc"), ("gvisor", "/usr/sbin/runc"), ("crun", "/usr/bin/crun")] {
            let runtime = of(name, path);
            assert_eq!(runtime, Runtime::Standard(name.to_owned()));
            assert!(runtime.warning(name).is_some_and(|warning| warning.contains("WORKSPACE_GVISOR_RUNTIME")));
        }
    }

    #[test]
    fn engines_before_20_10_are_too_old() {
        assert!(facts("1.40").is_too_old());
        assert!(!facts("1.41").is_too_old());
        assert!(!facts("1.9999").is_too_old());
        assert!(!facts("2.0").is_too_old());
    }
}
