//! The errors of client commands.

use emergent_types::error_chain;
use std::path::PathBuf;

use emergent_api::http::problem::{Problem, ProblemKind};

use crate::print::indented;

/// The reason for which a command did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    /// The server's address is no URL.
    #[error(
        "{0:?} is not the address of a server; give --server or EMERGENT_SERVER a URL such as http://127.0.0.1:7070"
    )]
    BadServer(String),
    /// The client could not be set up.
    #[error("the client could not be set up")]
    Setup(#[source] reqwest::Error),
    /// The file with a private authority's certificates has none.
    #[error("{} holds no certificates; --ca and EMERGENT_CA_FILE take a PEM file", .0.display())]
    NoCertificates(PathBuf),
    /// The server asks for a token, and none was found.
    #[error("{server} needs a token, and there is none: {looked}")]
    NoToken {
        /// The server's address.
        server: String,
        /// The places that were looked at, and how to name others.
        looked: String,
    },
    /// The server speaks plain HTTP where https was asked for.
    #[error(
        "{server} answers in plain HTTP; write its address as http://…, or give the server a certificate \
             (`emergent serve --tls-cert FILE --tls-key FILE`)"
    )]
    PlainHttp {
        /// The server's address.
        server: String,
    },
    /// The server was not reached, or not to the end.
    #[error("{server} could not be reached ({}); is `emergent serve` running there, and is --server right?", root_cause(.source))]
    Unreachable {
        /// The server's address.
        server: String,
        /// The failure. Its layers repeat each other; only the innermost is shown.
        source: reqwest::Error,
    },
    /// The server answered with a problem.
    #[error("{}: {}", .0.title, .0.detail)]
    Problem(Box<Problem>),
    /// Something answered that is not our server.
    #[error("what answers there is not an Emergent server (status {status})")]
    NotOurs {
        /// The HTTP status of the answer.
        status: u16,
    },
    /// The answer is not what this release knows.
    #[error("the server's answer is not what this release understands")]
    Nonsense(#[source] serde_json::Error),
    /// The answer leads to another address, where nothing is sent.
    #[error(
        "{server} sends its callers on to {to}, and no server does; if the server is there, give --server or \
         EMERGENT_SERVER its address"
    )]
    Redirected {
        /// The address of the server that was asked.
        server: String,
        /// The address that the answer leads to.
        to: String,
    },
    /// The answer is larger than any answer of a server.
    #[error("the answer has more than 64 MiB, as none of a server has; is --server right?")]
    EndlessAnswer,
    /// A list has more pages than are asked for.
    #[error("the list goes on after 10000 pages; is --server right? If it is, narrow the list down")]
    EndlessList,
    /// A stream of events ended before its time.
    #[error(transparent)]
    Events(super::events::EventError),
    /// No workspace is meant.
    #[error("no workspace has an id that begins with {0:?}, or that name; `emergent workspace ls` lists them")]
    NoSuchWorkspace(String),
    /// No snapshot is meant.
    #[error("no snapshot has an id that begins with {0:?}, or that name; `emergent snapshot ls` lists them")]
    NoSuchSnapshot(String),
    /// No token is meant.
    #[error("you see no token of the id or name {0:?}; `emergent token ls` lists them")]
    NoSuchToken(String),
    /// The parameters of a call are no JSON.
    #[error("the parameters are not a JSON object: {0}")]
    BadParameters(#[source] serde_json::Error),
    /// No project is meant.
    #[error("you see no project {0}; `emergent project ls` lists them")]
    NoSuchProject(String),
    /// More than one workspace or snapshot may be meant.
    #[error("{given:?} may mean {}; give one of these ids", .candidates.join(" or "))]
    Ambiguous {
        /// The id or name that was given.
        given: String,
        /// The ids that it may mean.
        candidates: Vec<String>,
    },
    /// The workspace was not ready in time, or failed.
    #[error("workspace {id} is {state}: {reason}")]
    NotReady {
        /// The workspace's id.
        id: String,
        /// The workspace's state.
        state: &'static str,
        /// The reason, as far as it is known.
        reason: String,
    },
    /// A local file cannot be read or written.
    #[error("{what}")]
    Local {
        /// The action that failed, with its path if it has one.
        what: String,
        /// The system's error.
        #[source]
        source: std::io::Error,
    },
    /// The command line asks for what cannot be.
    #[error("{0}")]
    Usage(String),
    /// A failure with the command that would do what was meant.
    #[error("{error}\n  {advice}")]
    Advised {
        /// The failure.
        error: Box<ClientError>,
        /// The next step.
        advice: String,
    },
}

impl ClientError {
    /// Returns the error of an answer that is no success.
    pub(crate) fn of_answer(status: u16, body: &[u8]) -> Self {
        match serde_json::from_slice::<Problem>(body) {
            Ok(problem) => Self::Problem(Box::new(problem)),
            Err(_) => Self::NotOurs { status },
        }
    }

    /// The error and its causes; a problem with its detail and each field.
    pub(crate) fn for_people(&self) -> String {
        match self {
            Self::Problem(problem) => of_problem(problem),
            Self::Unreachable { .. } => self.to_string(),
            Self::Advised { error, advice } => format!("{}\n  {advice}", error.for_people()),
            other => error_chain(other),
        }
    }

    /// Adds what to do next.
    pub(crate) fn advised(self, advice: String) -> Self {
        Self::Advised { error: Box::new(self), advice }
    }

    /// Whether the server answered with this kind of problem.
    pub(crate) fn is_problem(&self, kind: ProblemKind) -> bool {
        match self {
            Self::Problem(problem) => problem.kind == kind.address(),
            Self::Advised { error, .. } => error.is_problem(kind),
            _ => false,
        }
    }

    /// The workspace that could not be made, where the server's answer names one.
    pub(crate) fn failed_workspace(&self) -> Option<&str> {
        if let Self::Problem(problem) = self { problem.workspace_id.as_deref() } else { None }
    }

    /// Whether the server answered with a problem that blames this field.
    pub(crate) fn blames(&self, field: &str) -> bool {
        matches!(self, Self::Problem(problem) if problem.errors.iter().any(|error| error.field == field))
    }

    /// Whether trying again may help, because only the connection failed.
    pub(crate) fn is_of_connection(&self) -> bool {
        matches!(self, Self::Unreachable { .. })
    }
}

/// The title, the detail, and what each field is blamed for beyond that.
fn of_problem(problem: &Problem) -> String {
    let mut lines = vec![problem.title.clone()];
    let fields = problem.errors.iter().filter(|error| !problem.detail.contains(&error.message));
    lines.push(problem.detail.clone());
    lines.extend(fields.map(|error| format!("{}: {}", error.field, error.message)));
    // A detail may tell what a program has said last.
    let lines: Vec<_> = lines.iter().map(|line| indented(line)).collect();
    lines.join("\n  ")
}

/// Whether a TLS handshake failed because the other side speaks something else.
pub(super) fn is_no_tls(error: &reqwest::Error) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<rustls::Error>() {
            return matches!(error, rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType));
        }
        // The system's error names as its source not what it wraps, but the source of that.
        cause = match error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
            Some(wrapped) => Some(wrapped),
            None => error.source(),
        };
    }
    false
}

fn root_cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_detail_of_several_lines_is_shown_as_lines() {
        let problem = serde_json::json!({
            "type": "/problems/mcp-server-not-ready", "title": "It is not ready", "status": 503,
            "detail": "the installer said\r\nERROR: first\n\tsecond\u{1b}[2J\n",
        });
        let said = ClientError::of_answer(503, problem.to_string().as_bytes()).for_people();
        assert_eq!(said, "It is not ready\n  the installer said\n  ERROR: first\n  \tsecond\u{fffd}[2J");
    }
}
