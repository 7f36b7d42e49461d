//! Tokens that were found, in memory.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use chrono::Utc;
use emergent_store::{Store, StoreError, Token, TokenId};

use super::TokenSecret;
use crate::problem::chain;

/// How long a token is believed without asking the store: what another server on the same store may revoke meanwhile.
const BELIEVED: Duration = Duration::from_secs(30);

/// How long a token is believed that the store does not answer for: calls go on while the database is away.
const BELIEVED_AWAY: Duration = Duration::from_secs(600);

/// How many tokens are kept; more than that and the cache begins anew.
const MOST: usize = 10_000;

/// Finds tokens by their secrets. Clones share the memory.
#[derive(Clone)]
pub struct Tokens {
    store: Store,
    found: Arc<Mutex<Found>>,
}

#[derive(Default)]
struct Found {
    tokens: HashMap<[u8; 32], Known>,
    /// Counts what was forgotten: a lookup that was under way then must not bring back what it read before.
    generation: u64,
}

#[derive(Clone)]
struct Known {
    token: Arc<Token>,
    /// When the store has last said so.
    confirmed: Instant,
    /// When the store was last asked, whether it answered or not.
    asked: Instant,
}

impl Tokens {
    /// Tokens of this store.
    pub fn new(store: Store) -> Self {
        Self { store, found: Arc::default() }
    }

    /// The store behind.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The token with this secret, if it is valid now.
    ///
    /// # Errors
    /// [`StoreError`] when the store had to be asked and failed.
    pub async fn find(&self, secret: &TokenSecret) -> Result<Option<Arc<Token>>, StoreError> {
        let hash = secret.hash();
        let (known, generation) = self.recall(&hash);
        let token = match known {
            Some(known) if known.asked.elapsed() < BELIEVED => known.token,
            stale => match (self.store.tokens_find_by_hash(&hash).await, stale) {
                (Ok(Some(token)), _) => {
                    let (token, now) = (Arc::new(token), Instant::now());
                    self.remember(hash, Known { token: Arc::clone(&token), confirmed: now, asked: now }, generation);
                    token
                }
                (Ok(None), _) => return Ok(None),
                (Err(error), Some(known)) if known.confirmed.elapsed() < BELIEVED_AWAY => {
                    tracing::warn!(error = chain(&error), "a token is believed although the store does not answer");
                    let token = Arc::clone(&known.token);
                    self.remember(hash, Known { asked: Instant::now(), ..known }, generation);
                    token
                }
                (Err(error), _) => return Err(error),
            },
        };
        Ok(token.is_valid(Utc::now()).then_some(token))
    }

    /// Forgets a token, so that the next call asks the store. To be called after the store has changed it.
    pub fn forget(&self, id: TokenId) {
        let mut found = self.lock();
        found.generation += 1;
        found.tokens.retain(|_, known| known.token.id != id);
    }

    fn recall(&self, hash: &[u8; 32]) -> (Option<Known>, u64) {
        let found = self.lock();
        (found.tokens.get(hash).cloned(), found.generation)
    }

    fn remember(&self, hash: [u8; 32], known: Known, generation: u64) {
        let mut found = self.lock();
        if found.generation == generation {
            if found.tokens.len() >= MOST {
                found.tokens.clear();
            }
            found.tokens.insert(hash, known);
        }
    }

    /// Nothing is awaited and nothing can panic under this lock; a poisoned one is as good as new.
    fn lock(&self) -> MutexGuard<'_, Found> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
