//! The grant of a valid token: the right of its holder to go on until the token ends.

use std::{ops::Deref, sync::Arc};

use emergent_store::Token;
use tokio::sync::watch;

use crate::http::problem::{ProblemKind, Refusal};

/// The reason why a token is no longer accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GrantEnd {
    /// The token was revoked or rotated, or has expired.
    Revoked,
    /// The store has not confirmed the token for too long.
    Unconfirmed,
}

/// A token that was valid when it was found, with news of its end. Clones are of the same token.
#[derive(Debug, Clone)]
pub struct Grant {
    token: Arc<Token>,
    end: watch::Receiver<Option<GrantEnd>>,
}

/// Gives out grants of one token, and ends them.
pub(super) struct Granter {
    token: Arc<Token>,
    end: watch::Sender<Option<GrantEnd>>,
}

// === impl Grant ===

impl Grant {
    /// Returns when the token has ended; safe to drop and call again.
    pub async fn ended(&self) -> GrantEnd {
        let mut end = self.end.clone();
        // A token that was forgotten, which none is that something is open by, has to be found again.
        end.wait_for(Option::is_some).await.ok().and_then(|end| *end).unwrap_or(GrantEnd::Unconfirmed)
    }
}

impl Deref for Grant {
    type Target = Token;

    fn deref(&self) -> &Token {
        &self.token
    }
}

// === impl Granter ===

impl Granter {
    pub(super) fn new(token: Token) -> Self {
        Self { token: Arc::new(token), end: watch::Sender::default() }
    }

    pub(super) fn token(&self) -> &Token {
        &self.token
    }

    pub(super) fn grant(&self) -> Grant {
        Grant { token: Arc::clone(&self.token), end: self.end.subscribe() }
    }

    /// Returns whether any request or stream uses the token.
    pub(super) fn is_used(&self) -> bool {
        self.end.receiver_count() > 0
    }

    pub(super) fn end(&self, why: GrantEnd) {
        self.end.send_replace(Some(why));
    }
}

// === impl GrantEnd ===

impl GrantEnd {
    /// Returns the problem that a call gets whose token ends before the call does.
    pub(super) fn refusal(self) -> Refusal {
        match self {
            Self::Revoked => {
                let detail = "the token was revoked or rotated, or has expired, while the call went on; a command that \
                              it started runs on, and another token finds it under …/processes";
                Refusal::new(ProblemKind::Unauthorized, detail)
            }
            Self::Unconfirmed => {
                let detail = "the server's store has not answered for a minute, so that the token may have been revoked; \
                              try again, and look into the server's log if it goes on";
                Refusal::new(ProblemKind::StoreUnavailable, detail).retry_after(5)
            }
        }
    }
}
