//! The addresses of databases.

use std::{fmt, path::PathBuf, str::FromStr};

use super::postgres;

/// The place of the rows. Its texts never show a password.
#[derive(Clone, PartialEq, Eq)]
pub struct DatabaseUrl {
    pub(crate) location: Location,
}

#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Location {
    /// A SQLite file.
    Sqlite(PathBuf),
    /// A PostgreSQL database, by an address that has been read once without an error.
    Postgres(String),
}

/// A text that is not a [`DatabaseUrl`]. Does not repeat it: it may hold a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "a database is given as sqlite:///absolute/path/of/file.db or postgres://user:password@host:5432/database{}",
    .reason.as_ref().map(|reason| format!("; {reason}")).unwrap_or_default()
)]
pub struct InvalidDatabaseUrl {
    reason: Option<String>,
}

// === impl DatabaseUrl ===

impl DatabaseUrl {
    /// A SQLite file.
    pub fn sqlite(path: impl Into<PathBuf>) -> Self {
        Self { location: Location::Sqlite(path.into()) }
    }

    /// Whether several servers can share the database.
    pub fn is_shared(&self) -> bool {
        matches!(self.location, Location::Postgres(_))
    }
}

impl FromStr for DatabaseUrl {
    type Err = InvalidDatabaseUrl;

    fn from_str(text: &str) -> Result<Self, InvalidDatabaseUrl> {
        if text.starts_with("postgres://") || text.starts_with("postgresql://") {
            postgres::read(text).map_err(|reason| InvalidDatabaseUrl { reason: Some(reason) })?;
            return Ok(Self { location: Location::Postgres(text.to_owned()) });
        }
        let path = text.strip_prefix("sqlite://").map(PathBuf::from);
        let path = path.filter(|path| path.is_absolute() && path.file_name().is_some());
        path.map(Self::sqlite).ok_or(InvalidDatabaseUrl { reason: None })
    }
}

impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.location {
            Location::Sqlite(path) => write!(f, "sqlite://{}", path.display()),
            Location::Postgres(address) => match postgres::read(address) {
                Ok(options) => f.write_str(&postgres::describe(&options)),
                Err(_) => f.write_str("postgres://"),
            },
        }
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
