//! The errors of the settings, all of which are reported at once.

use std::{fmt, path::PathBuf};

use super::{env_vars::Variable, source::Source};

/// The settings cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the settings cannot be used:\n{}", .0.iter().map(|fault| format!("  {fault}")).collect::<Vec<_>>().join("\n"))]
pub(crate) struct ConfigError(pub(crate) Vec<Fault>);

/// One error of the settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fault {
    /// No setting has this name.
    Unknown {
        /// The name.
        name: String,
        /// The setting that was probably meant.
        suggestion: Option<&'static str>,
        /// The source of the name.
        source: Source,
    },
    /// The value is of the wrong kind.
    Malformed {
        /// The setting's name.
        name: &'static str,
        /// The value, unless it is a secret.
        value: Option<String>,
        /// The reason, where there is more to say.
        reason: String,
        /// The values that the setting takes.
        takes: &'static str,
        /// The source of the value.
        source: Source,
    },
    /// A file cannot be read.
    File {
        /// The path of the file.
        path: PathBuf,
        /// The reason.
        reason: String,
    },
    /// Settings contradict each other.
    Conflict(String),
}

impl Fault {
    /// Makes the error of a value of the wrong kind.
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
