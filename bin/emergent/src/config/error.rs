//! What is wrong with the settings. All of it is said at once.

use std::{fmt, path::PathBuf};

use super::{env_vars::Variable, settings::Source};

/// The settings cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the settings cannot be used:\n{}", .0.iter().map(|fault| format!("  {fault}")).collect::<Vec<_>>().join("\n"))]
pub(crate) struct ConfigError(pub(crate) Vec<Fault>);

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nobody knows this name.
    Unknown {
        /// The name.
        name: String,
        /// What was probably meant.
        suggestion: Option<&'static str>,
        /// Where it stands.
        source: Source,
    },
    /// The value is not of the right kind.
    Malformed {
        /// The setting's name.
        name: &'static str,
        /// The value, unless it is a secret.
        value: Option<String>,
        /// What is wrong, where there is more to say.
        reason: String,
        /// What it takes.
        takes: &'static str,
        /// Where it stands.
        source: Source,
    },
    /// A file cannot be read.
    File {
        /// Which file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// Settings do not go together.
    Conflict(String),
}

impl Fault {
    /// The value of a setting is not of the right kind.
    pub(crate) fn malformed(variable: &'static Variable, value: Option<&str>, reason: &str, source: &Source) -> Self {
        Self::Malformed {
            name: variable.name,
            value: value.filter(|_| !variable.secret).map(str::to_owned),
            reason: if variable.secret { String::new() } else { reason.to_owned() },
            takes: variable.takes,
            source: source.clone(),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown { name, suggestion, source } => {
                write!(f, "{name} ({source}) is not a setting")?;
                match suggestion {
                    Some(suggestion) => write!(f, "; did you mean {suggestion}?"),
                    None => f.write_str("; `emergent serve --help` lists them all"),
                }
            }
            Self::Malformed { name, value, reason, takes, source } => {
                write!(f, "{name} ({source}) takes {takes}")?;
                if let Some(value) = value {
                    write!(f, "; it is {value:?}")?;
                }
                if reason.is_empty() { Ok(()) } else { write!(f, " ({reason})") }
            }
            Self::File { path, reason } => write!(f, "{} cannot be read: {reason}", path.display()),
            Self::Conflict(reason) => f.write_str(reason),
        }
    }
}
