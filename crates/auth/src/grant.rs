//! The grant of a principal: the right of a request to go on until the principal's token ends.

use std::{ops::Deref, sync::Arc};

use tokio::sync::watch;

use crate::principal::Principal;

/// The reason why a token is no longer accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GrantEnd {
    /// The token was revoked or rotated, or has expired.
    Revoked,
    /// The store has not confirmed the token for too long.
    Unconfirmed,
}

/// A principal whose token was valid when it was found, with news of the token's end. Clones are of the same token.
#[derive(Debug, Clone)]
pub struct Grant {
    principal: Arc<Principal>,
    end: watch::Receiver<Option<GrantEnd>>,
}

/// Gives out the grants of one principal, and ends them.
#[derive(Debug)]
pub struct Granter {
    principal: Arc<Principal>,
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
    type Target = Principal;

    fn deref(&self) -> &Principal {
        &self.principal
    }
}

// === impl Granter ===

impl Granter {
    /// Makes a granter of a principal whose token is valid.
    #[must_use]
    pub fn new(principal: Principal) -> Self {
        Self { principal: Arc::new(principal), end: watch::Sender::default() }
    }

    /// Returns the principal.
    pub fn principal(&self) -> &Principal {
        &self.principal
    }

    /// Returns a new grant.
    pub fn grant(&self) -> Grant {
        Grant { principal: Arc::clone(&self.principal), end: self.end.subscribe() }
    }

    /// Returns whether any request or stream holds a grant.
    pub fn is_used(&self) -> bool {
        self.end.receiver_count() > 0
    }

    /// Ends all grants.
    pub fn end(&self, why: GrantEnd) {
        self.end.send_replace(Some(why));
    }
}
