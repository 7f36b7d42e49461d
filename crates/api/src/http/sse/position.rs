//! The position in an execution's output up to which the output has been sent.

use std::{fmt, str::FromStr};

use axum::http::HeaderMap;
use emergent_guest_proto::ExecutionId;

use crate::http::problem::{ProblemKind, Refusal};

/// The positions in an execution's two streams up to which they have been sent. As text, `execution:stdout:stderr`, it
/// is the id of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) execution: ExecutionId,
    pub(crate) stdout: u64,
    pub(crate) stderr: u64,
}

/// A text that is no [`Position`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct InvalidPosition;

impl Position {
    /// Returns the beginning of an execution's output.
    pub(crate) fn start(execution: ExecutionId) -> Self {
        Self { execution, stdout: 0, stderr: 0 }
    }

    /// Reads the position in `Last-Event-ID`, if the header is there.
    ///
    /// # Errors
    /// A problem when the header is not an id of this server.
    pub(crate) fn from_headers(headers: &HeaderMap) -> Result<Option<Self>, Refusal> {
        let Some(value) = headers.get("last-event-id") else { return Ok(None) };
        let position = value.to_str().ok().and_then(|text| text.parse().ok());
        position.map(Some).ok_or_else(|| {
            let message = "it is not the id of an event of this API, which is execution:stdout:stderr";
            Refusal::of_field(ProblemKind::InvalidValue, "Last-Event-ID", message)
        })
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.execution, self.stdout, self.stderr)
    }
}

impl FromStr for Position {
    type Err = InvalidPosition;

    fn from_str(text: &str) -> Result<Self, InvalidPosition> {
        let mut parts = text.split(':');
        let mut next = || parts.next().ok_or(InvalidPosition);
        let (execution, stdout, stderr) = (next()?, next()?, next()?);
        let position = Self {
            execution: ExecutionId::new(execution).map_err(|_| InvalidPosition)?,
            stdout: stdout.parse().map_err(|_| InvalidPosition)?,
            stderr: stderr.parse().map_err(|_| InvalidPosition)?,
        };
        if parts.next().is_none() { Ok(position) } else { Err(InvalidPosition) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_survives_its_text() {
        let position = Position { execution: ExecutionId::new("a-b_1").unwrap(), stdout: 7, stderr: u64::MAX };
        assert_eq!(position.to_string().parse(), Ok(position));
        for text in ["", "a", "a:1", "a:1:2:3", "a:-1:2", "é:1:2"] {
            assert_eq!(text.parse::<Position>(), Err(InvalidPosition), "{text}");
        }
    }
}
