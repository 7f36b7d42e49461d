//! The tokens: found by their secrets, and ended. A cache of valid tokens in memory spares the store most questions, and reports the end of each token to the requests and streams that use it.
//!
//! A call with a known token asks the store nothing. Instead, one look every half second tells whether any token of the
//! installation was revoked or rotated since the last look; only if so, the tokens in memory are compared with the
//! store. So this server learns within a second of a change that another server has made, and ends the requests and
//! streams that use the token.
//!
//! While the store does not answer, only tokens that it has confirmed in the last minute are valid.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};
use emergent_store::{ProjectId, Store, StoreError, Token, TokenId};
use emergent_types::error_chain;
use parking_lot::{Mutex, MutexGuard};
use tokio::{
    sync::broadcast,
    time::{sleep, timeout},
};

use crate::{
    live_principal::{LivePrincipal, PrincipalEnd, PrincipalKeeper},
    principal::Principal,
    secret::TokenSecret,
};

/// The interval between two looks at the store for changed tokens.
const LOOK: Duration = Duration::from_millis(500);

/// The time for which a token is believed without a new confirmation by the store. Longer than [`LOOK`], since a look
/// may be late.
const FRESH: Duration = Duration::from_secs(1);

/// The time that a look may take before the store counts as away.
const LOOK_BUDGET: Duration = Duration::from_secs(2);

/// The time for which a token is believed after its last confirmation when the store does not answer any more.
const BELIEVED_AWAY: Duration = Duration::from_secs(60);

/// The time for which an unused token is kept that no request or stream uses.
const KEPT_UNUSED: Duration = Duration::from_secs(3600);

/// The greatest number of kept tokens; beyond it, tokens that no request or stream uses are forgotten.
const MOST: usize = 10_000;

/// The number of ends of tokens that a listener may lag behind.
const ENDS: usize = 1_024;

/// Finds tokens by their secrets, and ends them. Clones share the memory.
#[derive(Clone)]
pub struct Tokens(Arc<Inner>);

struct Inner {
    store: Store,
    found: Mutex<Found>,
    /// Held during a look, so that many callers share one query.
    looking: tokio::sync::Mutex<()>,
    ends: broadcast::Sender<TokenId>,
    believed_away: Duration,
}

#[derive(Default)]
struct Found {
    tokens: HashMap<[u8; 32], CachedPrincipal>,
    /// Counts the times at which tokens were forgotten: a lookup that was under way at such a time must not bring back
    /// what it read before.
    generation: u64,
    /// The store's count of changes at the last look.
    changes: Option<i64>,
    /// The time at which the store last confirmed all tokens in memory: the beginning of the query, not the arrival of
    /// the answer.
    confirmed: Option<Instant>,
    /// Whether the last look had no answer.
    away: bool,
}

struct CachedPrincipal {
    keeper: PrincipalKeeper,
    /// The time at which the token stops working; `None` for never.
    expires_at: Option<DateTime<Utc>>,
    read: Instant,
    used: Instant,
}

/// The cache's answer about a token.
enum Lookup {
    /// The token is in memory and need not be confirmed. `None`: the token has expired.
    Believed(Option<LivePrincipal>),
    /// The token is in memory, and a look at the store is due.
    Stale,
    Unknown,
}

// === impl Tokens ===

impl Tokens {
    /// Makes a cache of the tokens in this store. A task looks at the store for as long as the cache is in use. Call
    /// this within a runtime.
    pub fn new(store: Store) -> Self {
        Self::believing(store, BELIEVED_AWAY)
    }

    /// Makes a cache with another time for which tokens are believed while the store is away.
    fn believing(store: Store, believed_away: Duration) -> Self {
        let (found, looking, ends) = (Mutex::default(), tokio::sync::Mutex::default(), broadcast::channel(ENDS).0);
        let inner = Arc::new(Inner { store, found, looking, ends, believed_away });
        tokio::spawn(look_again_and_again(Arc::downgrade(&inner)));
        Self(inner)
    }

    /// Returns the principal whose token has this secret. `None`: no token that is valid now has it.
    ///
    /// # Errors
    /// [`StoreError`] when the store had to be asked and failed.
    pub async fn find(&self, secret: &TokenSecret) -> Result<Option<LivePrincipal>, StoreError> {
        let hash = secret.hash();
        if let Lookup::Stale = self.0.recall(&hash) {
            self.0.look_once().await;
        }
        loop {
            if let Lookup::Believed(principal) = self.0.recall(&hash) {
                return Ok(principal);
            }
            let (generation, read) = (self.0.lock().generation, Instant::now());
            match self.0.store.tokens_find_by_hash(&hash).await? {
                Some(token) if token.is_valid(Utc::now()) => {
                    // What was read before another change may be wrong by now: it is read again.
                    if let Some(principal) = self.0.remember(hash, token, generation, read) {
                        return Ok(Some(principal));
                    }
                }
                Some(_) | None => {
                    self.0.end(PrincipalEnd::Revoked, |other, _| *other == hash);
                    return Ok(None);
                }
            }
        }
    }

    /// Revokes a token for good, and ends all requests and streams that use it. Revoking a revoked token changes nothing.
    /// `None`: the project has no such token.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn revoke(&self, project: ProjectId, id: TokenId) -> Result<Option<Token>, StoreError> {
        let revoked = self.0.store.tokens_revoke(project, id).await?;
        if revoked.is_some() {
            self.forget(id);
        }
        Ok(revoked)
    }

    /// Gives a token a new secret, and ends all requests and streams that use the old one. `None`: the project has no such
    /// token, or it is revoked.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn rotate(&self, project: ProjectId, id: TokenId) -> Result<Option<(Token, TokenSecret)>, StoreError> {
        let secret = TokenSecret::generate();
        let Some(token) = self.0.store.tokens_rotate(project, id, secret.hash()).await? else { return Ok(None) };
        self.forget(id);
        Ok(Some((token, secret)))
    }

    /// Ends all requests and streams that use a token, after the store has changed it.
    fn forget(&self, id: TokenId) {
        self.0.lock().generation += 1;
        self.0.end(PrincipalEnd::Revoked, |_, known| known.keeper.principal().token == id);
    }

    /// Subscribes to the ends of the tokens that were used on this server.
    #[must_use]
    pub fn ends(&self) -> broadcast::Receiver<TokenId> {
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
    fn recall(&self, hash: &[u8; 32]) -> Lookup {
        let mut found = self.lock();
        let (confirmed, away) = (found.confirmed, found.away);
        let Some(known) = found.tokens.get_mut(hash) else { return Lookup::Unknown };
        known.used = Instant::now();
        let age = known.age(confirmed);
        if age < FRESH || away && age < self.believed_away {
            return Lookup::Believed((!known.has_expired(Utc::now())).then(|| known.keeper.live()));
        }
        Lookup::Stale
    }

    /// Remembers a token; `None` where a token was forgotten since the lookup began.
    fn remember(&self, hash: [u8; 32], token: Token, generation: u64, read: Instant) -> Option<LivePrincipal> {
        let mut found = self.lock();
        if found.generation != generation {
            return None;
        }
        if found.tokens.len() >= MOST {
            found.tokens.retain(|_, known| known.keeper.is_used());
        }
        let known = found.tokens.entry(hash).or_insert_with(|| {
            let expires_at = token.expires_at;
            let principal = Principal::holder_of(token);
            CachedPrincipal { keeper: PrincipalKeeper::new(principal), expires_at, read, used: read }
        });
        known.read = read;
        Some(known.keeper.live())
    }

    /// Waits for a look that a caller needs: for the one under way, if there is one.
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

    /// Asks the store whether any token has changed, and ends the tokens that are no longer valid.
    async fn look(&self) {
        let (began, now) = (Instant::now(), Utc::now());
        self.end(PrincipalEnd::Revoked, |_, known| known.has_expired(now));
        self.lock().tokens.retain(|_, known| known.keeper.is_used() || known.used.elapsed() < KEPT_UNUSED);
        if self.lock().tokens.is_empty() {
            return;
        }
        match timeout(LOOK_BUDGET, self.ask()).await {
            Ok(Ok(())) => {
                let mut found = self.lock();
                (found.confirmed, found.away) = (Some(began), false);
            }
            Ok(Err(error)) => self.is_away(&error_chain(&error)),
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
        self.end(PrincipalEnd::Revoked, |hash, _| over.contains(hash));
        self.lock().changes = Some(changes);
        Ok(())
    }

    fn is_away(&self, reason: &str) {
        let before = std::mem::replace(&mut self.lock().away, true);
        if !before {
            tracing::warn!(reason, "the store does not answer; tokens that were seen are believed for a minute");
        }
        let confirmed = self.lock().confirmed;
        self.end(PrincipalEnd::Unconfirmed, |_, known| known.age(confirmed) >= self.believed_away);
    }

    /// Forgets tokens, and ends the requests and streams that use them.
    fn end(&self, why: PrincipalEnd, is_meant: impl Fn(&[u8; 32], &CachedPrincipal) -> bool) {
        let mut found = self.lock();
        let ended: Vec<_> = found.tokens.extract_if(|hash, known| is_meant(hash, known)).collect();
        drop(found);
        for (_, known) in ended {
            known.keeper.end(why);
            // A store that comes back finds the sessions of MCP servers as they were.
            if why == PrincipalEnd::Revoked {
                // Nobody may be listening.
                self.ends.send(known.keeper.principal().token).ok();
            }
        }
    }

    /// Locks the table. Nothing is awaited under this lock.
    fn lock(&self) -> MutexGuard<'_, Found> {
        self.found.lock()
    }
}

// === impl CachedPrincipal ===

impl CachedPrincipal {
    /// Returns whether the time is over for which the token was made.
    fn has_expired(&self, now: DateTime<Utc>) -> bool {
        self.expires_at.is_some_and(|expiry| now >= expiry)
    }

    /// Returns how long ago the store last confirmed the token.
    fn age(&self, confirmed: Option<Instant>) -> Duration {
        confirmed.map_or(self.read, |confirmed| confirmed.max(self.read)).elapsed()
    }
}

#[cfg(test)]
mod tests;
