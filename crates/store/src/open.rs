//! Opens a store: the file, the connections, the schema.

use std::{fmt, path::PathBuf, str::FromStr};

use crate::{
    connection::{Reader, Writer},
    error::OpenError,
    installation::Installation,
};

/// Where the rows are.
#[derive(Clone, PartialEq, Eq)]
pub struct DatabaseUrl {
    path: PathBuf,
}

/// A text that is not a [`DatabaseUrl`]. Does not repeat it: it may hold a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a database is given as sqlite:///absolute/path/of/file.db")]
pub struct InvalidDatabaseUrl;

/// All rows. Clones share the connections.
#[derive(Clone)]
pub struct Store {
    pub(crate) reader: Reader,
    pub(crate) writer: Writer,
    pub(crate) installation: Installation,
}

// === impl DatabaseUrl ===

impl DatabaseUrl {
    /// A SQLite file.
    pub fn sqlite(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }
}

impl FromStr for DatabaseUrl {
    type Err = InvalidDatabaseUrl;

    fn from_str(text: &str) -> Result<Self, InvalidDatabaseUrl> {
        let path = text.strip_prefix("sqlite://").map(PathBuf::from).ok_or(InvalidDatabaseUrl)?;
        if path.is_absolute() && path.file_name().is_some() { Ok(Self { path }) } else { Err(InvalidDatabaseUrl) }
    }
}

impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sqlite://{}", self.path.display())
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

// === impl Store ===

impl Store {
    /// Opens the database, makes it where there is none (the file readable by its owner only), and brings it to this
    /// release's schema.
    ///
    /// # Errors
    /// [`OpenError`] says which of these failed; a failed migration leaves the schema as it was.
    pub async fn open(url: &DatabaseUrl) -> Result<Self, OpenError> {
        let writer = Writer::open(&url.path).await?;
        writer.migrate().await?;
        let reader = Reader::open(&url.path).await?;
        let installation = Installation::load_or_make(&writer).await.map_err(OpenError::Prepare)?;
        Ok(Self { reader, writer, installation })
    }
}
