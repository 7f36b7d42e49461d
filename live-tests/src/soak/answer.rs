//! The answers to requests, and the rules that hold for every answer to any request.

use std::time::Duration;

use bytes::Bytes;
use reqwest::{RequestBuilder, Response, header};
use serde_json::Value;

/// The time that any answer may take. A command in a workspace that is paused waits for its whole time-out, of 120 s where
/// none is given, and is answered then.
pub const PATIENCE: Duration = Duration::from_secs(150);

/// The result of a request.
#[derive(Debug, Clone)]
pub enum Answer {
    /// An answer.
    Reply {
        /// The HTTP status.
        status: u16,
        /// The last part of the problem's `type`.
        problem: Option<String>,
        /// The answer says when to try again.
        retry_after: bool,
        /// The body.
        body: Bytes,
    },
    /// The connection was refused or broke.
    Nothing(String),
    /// The answer began as a success, and broke off: the server has no other way to say that the contents have gone.
    Cut(String),
    /// No answer came, and the connection did not break, within [`PATIENCE`].
    Hung,
}

impl Answer {
    /// Sends a request and reads the whole answer.
    pub async fn to(request: RequestBuilder) -> Self {
        let exchange = async {
            match request.send().await {
                Ok(response) => Self::of(response).await,
                Err(error) => Self::Nothing(format!("{:#}", anyhow::Error::from(error))),
            }
        };
        tokio::time::timeout(PATIENCE, exchange).await.unwrap_or(Self::Hung)
    }

    /// Reads an answer that has begun.
    pub async fn of(response: Response) -> Self {
        let status = response.status();
        let retry_after = response.headers().contains_key(header::RETRY_AFTER);
        let body = match response.bytes().await {
            Ok(body) => body,
            Err(error) if status.is_success() => return Self::Cut(format!("{:#}", anyhow::Error::from(error))),
            Err(error) => return Self::Nothing(format!("{:#}", anyhow::Error::from(error))),
        };
        let problem = (status.is_client_error() || status.is_server_error()).then(|| slug(&body)).flatten();
        Self::Reply { status: status.as_u16(), problem, retry_after, body }
    }

    /// The refusal that a problem describes.
    pub fn of_problem(problem: &Value) -> Self {
        let status = problem["status"].as_u64().and_then(|status| u16::try_from(status).ok()).unwrap_or_default();
        let body = Bytes::from(problem.to_string());
        Self::Reply { status, problem: slug(&body), retry_after: true, body }
    }

    /// Returns the result in a few words, for counting.
    pub fn words(&self) -> String {
        match self {
            Self::Reply { status, problem: Some(problem), .. } => format!("{status} {problem}"),
            Self::Reply { status, .. } => status.to_string(),
            Self::Nothing(_) => "no answer".to_owned(),
            Self::Cut(_) => "cut short".to_owned(),
            Self::Hung => "hung".to_owned(),
        }
    }

    /// The status, if there was an answer.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Reply { status, .. } => Some(*status),
            Self::Nothing(_) | Self::Cut(_) | Self::Hung => None,
        }
    }

    /// The problem's name.
    pub fn problem(&self) -> Option<&str> {
        match self {
            Self::Reply { problem, .. } => problem.as_deref(),
            Self::Nothing(_) | Self::Cut(_) | Self::Hung => None,
        }
    }

    /// Whether the answer is a success.
    pub fn is_success(&self) -> bool {
        self.status().is_some_and(|status| (200..300).contains(&status))
    }

    /// The body as JSON; null when it is not JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(self.body()).unwrap_or_default()
    }

    /// The body.
    pub fn body(&self) -> &[u8] {
        match self {
            Self::Reply { body, .. } => body,
            Self::Nothing(_) | Self::Cut(_) | Self::Hung => &[],
        }
    }

    /// Returns all of the answer, cut, for a finding.
    pub fn shown(&self) -> String {
        let detail: String = match self {
            Self::Nothing(why) | Self::Cut(why) => why.chars().take(300).collect(),
            Self::Hung => format!("nothing within {PATIENCE:?}"),
            Self::Reply { body, .. } => String::from_utf8_lossy(body).chars().take(600).collect(),
        };
        format!("{}: {detail}", self.words())
    }

    /// Returns the rule that this answer breaks, whatever the circumstances.
    pub fn broken_rule(&self) -> Option<&'static str> {
        match self {
            Self::Hung => Some("every request is answered in time"),
            Self::Nothing(_) | Self::Cut(_) => None,
            Self::Reply { status: 500, .. } => Some("no request is answered with 500"),
            Self::Reply { status, problem: None, .. } if *status >= 400 => Some("a refusal is a problem with a type"),
            Self::Reply { status: 429 | 503, retry_after: false, .. } => Some("429 and 503 say when to try again"),
            Self::Reply { .. } => None,
        }
    }
}

fn slug(body: &[u8]) -> Option<String> {
    let problem: Value = serde_json::from_slice(body).ok()?;
    let address = problem["type"].as_str()?;
    address.rsplit_once("/problems/").map(|(_, slug)| slug.to_owned())
}

/// Whether a problem comes from the guest: the call has reached the workspace, and the guest refused it.
pub fn is_of_guest(problem: &str) -> bool {
    const OF_GUEST: &[&str] = &[
        "permission-denied",
        "file-not-found",
        "unknown-execution",
        "execution-exists",
        "not-running",
        "already-exists",
        "is-directory",
        "not-a-directory",
        "string-not-found",
        "several-matches",
        "binary-file",
        "missing-program",
        "git-failed",
        "resource-limit",
        "disk-full",
    ];
    OF_GUEST.contains(&problem)
}

/// An answer made up for tests.
#[cfg(test)]
pub(crate) fn example(status: reqwest::StatusCode, problem: Option<&str>) -> Answer {
    Answer::Reply {
        status: status.as_u16(),
        problem: problem.map(str::to_owned),
        retry_after: true,
        body: Bytes::new(),
    }
}

#[cfg(test)]
mod tests {
    use reqwest::StatusCode;

    use super::*;

    #[test]
    fn a_refusal_without_a_type_breaks_a_rule() {
        assert!(example(StatusCode::CONFLICT, None).broken_rule().is_some());
        assert_eq!(example(StatusCode::CONFLICT, Some("wrong-state")).broken_rule(), None);
        assert_eq!(example(StatusCode::OK, None).broken_rule(), None);
    }

    #[test]
    fn a_500_breaks_a_rule_even_with_a_type() {
        assert!(example(StatusCode::INTERNAL_SERVER_ERROR, Some("internal")).broken_rule().is_some());
    }
}
