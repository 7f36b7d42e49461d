//! Why a command did not do what it was asked.

use emergent_api::problem::{Problem, chain};

use crate::print::printable;

/// Why a command did not do what it was asked.
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
    /// The server was not reached, or not to the end.
    #[error("{server} could not be reached; is `emergent serve` running there, and is --server right?")]
    Unreachable {
        /// Which server.
        server: String,
        /// What failed.
        #[source]
        source: reqwest::Error,
    },
    /// The server answered with a problem.
    #[error("{}: {}", .0.title, .0.detail)]
    Problem(Box<Problem>),
    /// Something answered that is not our server.
    #[error("what answers there is not an Emergent server (status {status})")]
    NotOurs {
        /// Its status.
        status: u16,
    },
    /// The answer is not what this release knows.
    #[error("the server's answer is not what this release understands")]
    Nonsense(#[source] serde_json::Error),
    /// No workspace is meant.
    #[error("no workspace has an id that begins with {0:?}, or that name; `emergent workspace ls` lists them")]
    NoSuchWorkspace(String),
    /// More than one workspace may be meant.
    #[error("{given:?} may mean {}; give more of the id", .candidates.join(" or "))]
    Ambiguous {
        /// What was given.
        given: String,
        /// What it may mean.
        candidates: Vec<String>,
    },
    /// The workspace was not ready in time, or failed.
    #[error("workspace {id} is {state}: {reason}")]
    NotReady {
        /// Which workspace.
        id: String,
        /// Its state.
        state: &'static str,
        /// What is known, and what to do.
        reason: String,
    },
    /// A local file cannot be read or written.
    #[error("{what}")]
    Local {
        /// What was tried, with the path.
        what: String,
        /// The system's error.
        #[source]
        source: std::io::Error,
    },
    /// The command line asks for what cannot be.
    #[error("{0}")]
    Usage(String),
}

impl ClientError {
    /// What an answer that is no success says.
    pub(super) fn of_answer(status: u16, body: &[u8]) -> Self {
        match serde_json::from_slice::<Problem>(body) {
            Ok(problem) => Self::Problem(Box::new(problem)),
            Err(_) => Self::NotOurs { status },
        }
    }

    /// The error and its causes; a problem with its detail and each field.
    pub(crate) fn for_people(&self) -> String {
        let Self::Problem(problem) = self else { return chain(self) };
        let mut text = printable(&problem.title);
        let fields = problem.errors.iter().map(|error| format!("{}: {}", error.field, error.message));
        let mut details: Vec<_> = fields.collect();
        if !details.contains(&problem.detail) {
            details.insert(0, problem.detail.clone());
        }
        for detail in details {
            text.push_str("\n  ");
            text.push_str(&printable(&detail));
        }
        text
    }

    /// Whether trying again may help, because only the connection failed.
    pub(crate) fn is_of_connection(&self) -> bool {
        matches!(self, Self::Unreachable { .. })
    }
}
