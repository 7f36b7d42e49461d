//! A principal that makes a request, and the news of the end of its token.

use std::{ops::Deref, sync::Arc};

use tokio::sync::watch;

use crate::principal::Principal;

/// The reason why a token is no longer accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PrincipalEnd {
    /// The token was revoked or rotated, or has expired.
    Revoked,
    /// The store has not confirmed the token for too long.
    Unconfirmed,
}

/// A principal whose token was valid when it was found, with news of the token's end. Clones are of the same token.
#[derive(Debug, Clone)]
pub struct LivePrincipal {
    principal: Arc<Principal>,
    end: watch::Receiver<Option<PrincipalEnd>>,
}

/// Gives out one principal to requests, and ends what they have open.
#[derive(Debug)]
pub struct PrincipalKeeper {
    principal: Arc<Principal>,
    end: watch::Sender<Option<PrincipalEnd>>,
}

// === impl LivePrincipal ===

impl LivePrincipal {
    /// Returns when the token has ended; safe to drop and call again.
    pub async fn ended(&self) -> PrincipalEnd {
        let mut end = self.end.clone();
        // A token that was forgotten, which none is that something is open by, has to be found again.
        end.wait_for(Option::is_some).await.ok().and_then(|end| *end).unwrap_or(PrincipalEnd::Unconfirmed)
    }
}

impl Deref for LivePrincipal {
    type Target = Principal;

    fn deref(&self) -> &Principal {
        &self.principal
    }
}

// === impl PrincipalKeeper ===

impl PrincipalKeeper {
    /// Makes a keeper of a principal whose token is valid.
    #[must_use]
    pub fn new(principal: Principal) -> Self {
        Self { principal: Arc::new(principal), end: watch::Sender::default() }
    }

    /// Returns the principal.
    pub fn principal(&self) -> &Principal {
        &self.principal
    }

    /// Returns the principal for one more request.
    pub fn live(&self) -> LivePrincipal {
        LivePrincipal { principal: Arc::clone(&self.principal), end: self.end.subscribe() }
    }

    /// Returns whether any request or stream uses the principal.
    pub fn is_used(&self) -> bool {
        self.end.receiver_count() > 0
    }

    /// Tells all requests and streams that the token has ended.
    pub fn end(&self, why: PrincipalEnd) {
        self.end.send_replace(Some(why));
    }
}
