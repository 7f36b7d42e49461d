//! The last known offers of one owner's servers, shared by all its clients, so that a list is answered at once.
//!
//! An entry belongs to one version of one server. It may be a little old: each client reads a list again in the
//! background, and is told when it is another.

use std::{collections::HashMap, sync::Arc, time::Duration};

use parking_lot::{Mutex, MutexGuard};
use tokio::time::Instant;

use super::catalogue::{Catalogue, Offer};

/// The time that the first list waits for a server that nobody has read yet; later ones wait for the rest of this time.
const FIRST_WITHIN: Duration = Duration::from_secs(2);
/// The most entries that are kept, and the most bytes of them; the one that was not used for the longest time goes
/// first.
const MOST: usize = 1_000;
const MOST_BYTES: usize = 16 << 20;

/// The offers of one owner's servers, as far as they are known.
#[derive(Default)]
pub struct Catalogues(Mutex<HashMap<(String, Offer), Entry>>);

struct Entry {
    catalogue: Option<Arc<Catalogue>>,
    /// The time at which the entry was first asked for.
    since: Instant,
    used: Instant,
}

// === impl Catalogues ===

impl Catalogues {
    /// The offers of a version of a server, if they are known.
    pub(super) fn get(&self, version: &str, offer: Offer) -> Option<Arc<Catalogue>> {
        let mut all = self.lock();
        let entry = all.get_mut(&(version.to_owned(), offer))?;
        entry.used = Instant::now();
        entry.catalogue.clone()
    }

    /// Remembers the offers of a version of a server.
    pub(super) fn put(&self, version: &str, offer: Offer, catalogue: Arc<Catalogue>) {
        self.with(version, offer, |entry| entry.catalogue = Some(catalogue));
        let mut all = self.lock();
        let size = |entry: &Entry| entry.catalogue.as_ref().map_or(0, |catalogue| catalogue.size());
        while all.values().map(size).sum::<usize>() > MOST_BYTES {
            let known = all.iter().filter(|(_, entry)| entry.catalogue.is_some());
            let unused = known.min_by_key(|(_, entry)| entry.used).map(|(key, _)| key.clone());
            unused.and_then(|unused| all.remove(&unused));
        }
    }

    /// The time until which a list waits for a version of a server that is not known yet.
    pub(super) fn wait_until(&self, version: &str, offer: Offer) -> Instant {
        self.with(version, offer, |entry| entry.since + FIRST_WITHIN)
    }

    fn with<T>(&self, version: &str, offer: Offer, change: impl FnOnce(&mut Entry) -> T) -> T {
        let now = Instant::now();
        let mut all = self.lock();
        let key = (version.to_owned(), offer);
        if all.len() >= MOST && !all.contains_key(&key) {
            let unused = all.iter().min_by_key(|(_, entry)| entry.used).map(|(key, _)| key.clone());
            unused.and_then(|unused| all.remove(&unused));
        }
        let entry = all.entry(key).or_insert(Entry { catalogue: None, since: now, used: now });
        entry.used = now;
        change(entry)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<(String, Offer), Entry>> {
        self.0.lock()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::value::RawValue;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn long_catalogues_make_room_for_the_newest() {
        let description = "x".repeat(3 << 20);
        let page =
            RawValue::from_string(format!(r#"{{"tools":[{{"name":"t","description":"{description}"}}]}}"#)).unwrap();
        let all = Catalogues::default();
        for version in 0..8 {
            let mut catalogue = Catalogue::new();
            catalogue.add("s", Offer::Tools, &page);
            all.put(&version.to_string(), Offer::Tools, Arc::new(catalogue));
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        let kept: Vec<_> = (0..8).filter(|version| all.get(&version.to_string(), Offer::Tools).is_some()).collect();
        assert_eq!(kept, [3, 4, 5, 6, 7]);
    }
}
