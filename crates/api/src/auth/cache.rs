//! Tokens that were found, in memory, and word of their end to whatever goes on by them.
//!
//! A call by a token that was seen before asks the store nothing. Instead one look every half second tells whether any
//! token of the installation was revoked or rotated since the last one; only if so, those in memory are looked at. So a
//! change that another server has made is known here within a second, and what is open by the token ends.
//!
//! While the store does not answer, a token that it has confirmed in the last minute is believed, and no other.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::{Duration, Instant},
};

use chrono::Utc;
use emergent_store::{Store, StoreError, Token, TokenId};
use tokio::{
    sync::broadcast,
    time::{sleep, timeout},
};

use super::{
    TokenSecret,
    grant::{Grant, GrantEnd, Granter},
};
use crate::problem::chain;

/// How often the store is asked whether any token has changed.
const LOOK: Duration = Duration::from_millis(500);

/// How long a token is believed without a word of the store, which looks come before: a look may be late.
const FRESH: Duration = Duration::from_secs(1);

/// How long a look may take before the store counts as away.
const LOOK_BUDGET: Duration = Duration::from_secs(2);

/// How long a token is believed that the store was last heard to confirm, when it does not answer any more.
const BELIEVED_AWAY: Duration = Duration::from_secs(60);

/// How long a token is kept that nobody uses and nothing is open by.
const KEPT_UNUSED: Duration = Duration::from_secs(3600);

/// How many tokens are kept; with more, those that nothing is open by are forgotten.
const MOST: usize = 10_000;

/// How many ends of tokens a listener may be behind.
const ENDS: usize = 1_024;

/// Finds tokens by their secrets. Clones share the memory.
#[derive(Clone)]
pub struct Tokens(Arc<Inner>);

struct Inner {
    store: Store,
    found: Mutex<Found>,
    /// Held by whoever looks, so that of those who want to know one asks.
    looking: tokio::sync::Mutex<()>,
    ends: broadcast::Sender<TokenId>,
    believed_away: Duration,
}

#[derive(Default)]
struct Found {
    tokens: HashMap<[u8; 32], Known>,
    /// Counts what was forgotten: a lookup that was under way then must not bring back what it read before.
    generation: u64,
    /// The store's count of changes when it was last looked at.
    changes: Option<i64>,
    /// When the store last confirmed all that is in memory; before the question, not after the answer.
    confirmed: Option<Instant>,
    /// The last look had no answer.
    away: bool,
}

struct Known {
    granter: Granter,
    read: Instant,
    used: Instant,
}

/// The cache's answer about a token.
enum Recalled {
    Believed(Grant),
    /// It is there, and it is time to look at the store.
    Stale,
    Unknown,
}

// === impl Tokens ===

impl Tokens {
    /// Tokens of this store. A task of their own looks at the store for as long as they are used. To be called within a
    /// runtime.
    pub fn new(store: Store) -> Self {
        Self::believing(store, BELIEVED_AWAY)
    }

    /// The same, with another time for which tokens are believed while the store is away.
    fn believing(store: Store, believed_away: Duration) -> Self {
        let (found, looking, ends) = (Mutex::default(), tokio::sync::Mutex::default(), broadcast::channel(ENDS).0);
        let inner = Arc::new(Inner { store, found, looking, ends, believed_away });
        tokio::spawn(look_again_and_again(Arc::downgrade(&inner)));
        Self(inner)
    }

    /// The store behind.
    pub fn store(&self) -> &Store {
        &self.0.store
    }

    /// The token with this secret, if it is valid now.
    ///
    /// # Errors
    /// [`StoreError`] when the store had to be asked and failed.
    pub async fn find(&self, secret: &TokenSecret) -> Result<Option<Grant>, StoreError> {
        let hash = secret.hash();
        if let Recalled::Stale = self.0.recall(&hash) {
            self.0.look_once().await;
        }
        loop {
            if let Recalled::Believed(grant) = self.0.recall(&hash) {
                return Ok(grant.is_valid(Utc::now()).then_some(grant));
            }
            let (generation, read) = (self.0.lock().generation, Instant::now());
            match self.0.store.tokens_find_by_hash(&hash).await? {
                Some(token) if token.is_valid(Utc::now()) => {
                    // What was read before another change may be wrong by now: it is read again.
                    if let Some(grant) = self.0.remember(hash, token, generation, read) {
                        return Ok(Some(grant));
                    }
                }
                Some(_) | None => {
                    self.0.end(GrantEnd::Revoked, |it, _| *it == hash);
                    return Ok(None);
                }
            }
        }
    }

    /// Ends all that is open by a token. To be called after the store has changed it.
    pub fn forget(&self, id: TokenId) {
        self.0.lock().generation += 1;
        self.0.end(GrantEnd::Revoked, |_, known| known.granter.token().id == id);
    }

    /// The tokens that stop to be valid from now on, of those that were used here.
    pub(crate) fn ends(&self) -> broadcast::Receiver<TokenId> {
        self.0.ends.subscribe()
    }
}

async fn look_again_and_again(inner: Weak<Inner>) {
    loop {
        sleep(LOOK).await;
        let Some(inner) = inner.upgrade() else { return };
        let _one = inner.looking.lock().await;
        inner.look().await;
    }
}

// === impl Inner ===

impl Inner {
    fn recall(&self, hash: &[u8; 32]) -> Recalled {
        let mut found = self.lock();
        let (confirmed, away) = (found.confirmed, found.away);
        let Some(known) = found.tokens.get_mut(hash) else { return Recalled::Unknown };
        known.used = Instant::now();
        let age = known.age(confirmed);
        if age < FRESH || away && age < self.believed_away {
            return Recalled::Believed(known.granter.grant());
        }
        Recalled::Stale
    }

    /// `None`: something was forgotten meanwhile.
    fn remember(&self, hash: [u8; 32], token: Token, generation: u64, read: Instant) -> Option<Grant> {
        let mut found = self.lock();
        if found.generation != generation {
            return None;
        }
        if found.tokens.len() >= MOST {
            found.tokens.retain(|_, known| known.granter.is_used());
        }
        let known =
            found.tokens.entry(hash).or_insert_with(|| Known { granter: Granter::new(token), read, used: read });
        known.read = read;
        Some(known.granter.grant())
    }

    /// Waits for a look that a caller needs: the one that is under way, if there is one.
    async fn look_once(&self) {
        let _one = self.looking.lock().await;
        let is_late = {
            let found = self.lock();
            !found.away && found.confirmed.is_none_or(|confirmed| confirmed.elapsed() >= FRESH)
        };
        if is_late {
            self.look().await;
        }
    }

    /// Asks the store whether any token has changed, and ends what is over.
    async fn look(&self) {
        let (began, now) = (Instant::now(), Utc::now());
        self.end(GrantEnd::Revoked, |_, known| !known.granter.token().is_valid(now));
        self.lock().tokens.retain(|_, known| known.granter.is_used() || known.used.elapsed() < KEPT_UNUSED);
        if self.lock().tokens.is_empty() {
            return;
        }
        match timeout(LOOK_BUDGET, self.ask()).await {
            Ok(Ok(())) => {
                let mut found = self.lock();
                (found.confirmed, found.away) = (Some(began), false);
            }
            Ok(Err(error)) => self.is_away(&chain(&error)),
            Err(_) => self.is_away("it does not answer"),
        }
    }

    async fn ask(&self) -> Result<(), StoreError> {
        let changes = self.store.tokens_changes().await?;
        if self.lock().changes == Some(changes) {
            return Ok(());
        }
        let hashes: Vec<[u8; 32]> = {
            let mut found = self.lock();
            found.generation += 1;
            found.tokens.keys().copied().collect()
        };
        let valid: HashSet<_> = self.store.tokens_valid(&hashes, Utc::now()).await?.into_iter().collect();
        let mut over: HashSet<_> = hashes.into_iter().collect();
        over.retain(|hash| !valid.contains(hash));
        self.end(GrantEnd::Revoked, |hash, _| over.contains(hash));
        self.lock().changes = Some(changes);
        Ok(())
    }

    fn is_away(&self, reason: &str) {
        let before = std::mem::replace(&mut self.lock().away, true);
        if !before {
            tracing::warn!(reason, "the store does not answer; tokens that were seen are believed for a minute");
        }
        let confirmed = self.lock().confirmed;
        self.end(GrantEnd::Unconfirmed, |_, known| known.age(confirmed) >= self.believed_away);
    }

    /// Forgets tokens, and ends what is open by them.
    fn end(&self, why: GrantEnd, is_meant: impl Fn(&[u8; 32], &Known) -> bool) {
        let mut found = self.lock();
        let ended: Vec<_> = found.tokens.extract_if(|hash, known| is_meant(hash, known)).collect();
        drop(found);
        for (_, known) in ended {
            known.granter.end(why);
            // A store that comes back finds the sessions of MCP servers as they were.
            if why == GrantEnd::Revoked {
                // Nobody may be listening.
                self.ends.send(known.granter.token().id).ok();
            }
        }
    }

    /// Nothing is awaited and nothing can panic under this lock; a poisoned one is as good as new.
    fn lock(&self) -> MutexGuard<'_, Found> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Known ===

impl Known {
    /// How long ago the store last said that the token is as it is here.
    fn age(&self, confirmed: Option<Instant>) -> Duration {
        confirmed.map_or(self.read, |confirmed| confirmed.max(self.read)).elapsed()
    }
}

#[cfg(test)]
mod tests;
