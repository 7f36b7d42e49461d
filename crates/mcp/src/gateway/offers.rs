//! The reading of the servers' offers in the background: no list waits for a server that is slow, or broken.
//!
//! A server is read on the client's own connection to it, since it may offer each client something else; until that is
//! there, the offers that another client found are shown, or those of a warm process of the server.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use serde_json::{Value, json, value::RawValue};
use tokio::{
    sync::watch,
    time::{Instant, timeout_at},
};

use super::{
    Upstream,
    catalogue::{Catalogue, Offer},
    connection::Connection,
    known_offers::{Key, OwnOffers},
    session::GatewaySession,
};
use crate::{
    envelope::Message,
    headers::PAGES,
    rpc::{self, Failure},
};

/// The age from which the next list reads the offers of a server again.
const FRESH: Duration = Duration::from_secs(5);
/// The log levels at which a client hears no warnings.
const ABOVE_WARNING: [&str; 4] = ["error", "critical", "alert", "emergency"];

/// The source of a server's offers.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    /// The client's own connection to the server.
    Own,
    /// The same, after the server has told of a change of its list.
    OwnAfterChange,
    /// A warm process of the server, which knows nothing of the client.
    Warm,
}

impl GatewaySession {
    /// The offers of a server, as far as they are known. A first page begins to read them again where they may have
    /// changed, and waits for a short while where nobody has read them yet.
    pub(super) async fn offered(
        self: &Arc<Self>,
        server: &Upstream,
        offer: Offer,
        first: bool,
    ) -> Option<Arc<Catalogue>> {
        let known = self.known_offer(server, offer);
        let is_fresh = self.with_known(|it| {
            let own = it.own.get(&(server.name.clone(), offer)).filter(|own| own.version == server.version);
            own.is_some_and(|own| own.catalogue.read.elapsed() < FRESH)
        });
        if !first || is_fresh {
            return known;
        }
        let mut reading = self.read_offer(server, offer);
        if known.is_some() {
            return known;
        }
        let until = self.catalogues.wait_until(&server.version, offer);
        // Whether there is something, nothing will come, or the time is up, it is shown as it is.
        let _ = timeout_at(until, reading.wait_for(|shown| *shown)).await;
        self.with_known(|it| it.left_out.insert((server.name.clone(), offer)));
        let known = self.known_offer(server, offer);
        if known.is_some() {
            self.with_known(|it| it.left_out.remove(&(server.name.clone(), offer)));
        }
        known
    }

    /// Reads again the offers that lists were answered without.
    pub(super) fn read_left_out(self: &Arc<Self>, servers: &[Upstream]) {
        for server in servers.iter().filter(|server| server.trouble.is_none()) {
            for offer in Offer::ALL {
                if self.with_known(|it| it.left_out.contains(&(server.name.clone(), offer))) {
                    self.read_offer(server, offer);
                }
            }
        }
    }

    /// Handles a server's word that its offers have changed: the client is told when the new list is here.
    pub(super) fn offer_changed(self: &Arc<Self>, from: &Arc<Connection>, offer: Offer) {
        let key = (from.server().to_owned(), offer);
        let (tell, reading) = watch::channel(false);
        let is_being_read = self.with_known(|it| {
            let is_being_read = it.reading.contains_key(&key);
            if is_being_read {
                it.again.insert(key);
            } else {
                it.reading.insert(key, reading);
            }
            is_being_read
        });
        if is_being_read {
            return;
        }
        let (gateway, name) = (Arc::clone(self), from.server().to_owned());
        self.spawn(async move {
            let servers = gateway.upstreams.list().await;
            match servers.into_iter().find(|server| server.name == name) {
                Some(server) => gateway.reading(server, offer, Source::OwnAfterChange, tell).await,
                None => gateway.with_known(|it| drop(it.reading.remove(&(name, offer)))),
            }
        });
    }

    /// Forgets the offers of servers that are gone or have changed.
    pub(super) fn forget_offers(&self, servers: &[Upstream]) {
        self.with_known(|it| {
            let is_there = |(name, _): &Key| servers.iter().any(|server| server.name == *name);
            it.own.retain(|(name, _), own| {
                servers.iter().any(|server| server.name == *name && server.version == own.version)
            });
            it.left_out.retain(is_there);
            it.failures.retain(|name, _| servers.iter().any(|server| server.name == *name));
        });
    }

    /// Tells the client, once for each reason, of the servers that are left out of its list.
    pub(super) async fn tell_troubles(&self, servers: &[Upstream], message: &Message, modern: bool) {
        let asks = message.params().meta().is_some_and(|meta| meta.log_level.is_some());
        let hears = if modern { asks } else { !self.hears_no_warnings() };
        if !hears {
            return;
        }
        let news: Vec<String> = self.with_known(|it| {
            let trouble = |server: &Upstream| {
                let is_left_out =
                    || Offer::ALL.iter().any(|offer| it.left_out.contains(&(server.name.clone(), *offer)));
                let failure = || it.failures.get(&server.name).filter(|_| is_left_out());
                let why = server.trouble.as_ref().or_else(failure)?;
                Some((server.name.clone(), why.clone()))
            };
            let troubles: BTreeMap<String, String> = servers.iter().filter_map(trouble).collect();
            let new = troubles.iter().filter(|(name, why)| it.told.get(*name) != Some(why));
            let news =
                new.map(|(name, why)| format!("the MCP server {name:?} is left out of the list: {why}")).collect();
            it.told = troubles;
            news
        });
        for text in news {
            let params = json!({ "level": "warning", "logger": "emergent", "data": text }).to_string();
            self.say(rpc::notification("notifications/message", &params)).await;
        }
    }

    fn hears_no_warnings(&self) -> bool {
        let params = self.log_level().and_then(|params| serde_json::from_str::<Value>(&params).ok());
        params.is_some_and(|params| ABOVE_WARNING.iter().any(|level| params["level"] == *level))
    }

    fn known_offer(&self, server: &Upstream, offer: Offer) -> Option<Arc<Catalogue>> {
        let own = self.with_known(|it| {
            let own = it.own.get(&(server.name.clone(), offer)).filter(|own| own.version == server.version);
            own.map(|own| Arc::clone(&own.catalogue))
        });
        own.or_else(|| self.catalogues.get(&server.version, offer))
    }

    /// Begins to read the offers of a server, unless that is under way.
    fn read_offer(self: &Arc<Self>, server: &Upstream, offer: Offer) -> watch::Receiver<bool> {
        let (tell, reading) = watch::channel(false);
        let under_way = self.with_known(|it| match it.reading.get(&(server.name.clone(), offer)) {
            Some(under_way) => Some(under_way.clone()),
            None => {
                it.reading.insert((server.name.clone(), offer), reading.clone());
                None
            }
        });
        if let Some(under_way) = under_way {
            return under_way;
        }
        self.spawn(Arc::clone(self).reading(server.clone(), offer, Source::Own, tell));
        reading
    }

    /// Reads the offers of a server; the client is told when they differ from those that were shown, or the server has
    /// told of a change.
    async fn reading(self: Arc<Self>, server: Upstream, offer: Offer, source: Source, tell: watch::Sender<bool>) {
        let key = (server.name.clone(), offer);
        let mut source = source;
        loop {
            let read = if self.known_offer(&server, offer).is_some() {
                self.read_own(&server, offer).await
            } else {
                // A warm process is there before a connection is, where there is one.
                let warm = async {
                    if let Some(catalogue) = self.read_warm(&server, offer).await
                        && self.known_offer(&server, offer).is_none()
                    {
                        self.found(&server, offer, catalogue, Source::Warm).await;
                        tell.send_replace(true);
                    }
                    std::future::pending().await
                };
                tokio::select! {
                    read = self.read_own(&server, offer) => read,
                    never = warm => never,
                }
            };
            match read {
                Ok(catalogue) => self.found(&server, offer, catalogue, source).await,
                Err(failure) => {
                    tracing::info!(server = server.name, reason = failure.message, "a server is left out of a list");
                    self.with_known(|it| it.failures.insert(server.name.clone(), failure.message));
                    if source == Source::OwnAfterChange {
                        self.tell_change(offer).await;
                    }
                }
            }
            let again = self.with_known(|it| {
                let again = it.again.remove(&key);
                if !again {
                    it.reading.remove(&key);
                }
                again
            });
            if !again {
                return;
            }
            source = Source::OwnAfterChange;
        }
    }

    /// Keeps the offers that a server was found to have, and tells the client of a change.
    async fn found(&self, server: &Upstream, offer: Offer, catalogue: Arc<Catalogue>, source: Source) {
        let key = (server.name.clone(), offer);
        let before = self.known_offer(server, offer);
        self.catalogues.put(&server.version, offer, Arc::clone(&catalogue));
        let was_left_out = self.with_known(|it| {
            if source != Source::Warm {
                it.failures.remove(&server.name);
                it.own.insert(
                    key.clone(),
                    OwnOffers { version: server.version.clone(), catalogue: Arc::clone(&catalogue) },
                );
            }
            it.left_out.remove(&key)
        });
        let differs = before.is_some_and(|before| !before.lists_the_same(&catalogue));
        if source == Source::OwnAfterChange || was_left_out || differs {
            self.tell_change(offer).await;
        }
    }

    async fn read_own(self: &Arc<Self>, server: &Upstream, offer: Offer) -> Result<Arc<Catalogue>, Failure> {
        let connection = self.connection(&server.name).await?;
        connection.forget(offer);
        let read = connection.catalogue(self, offer).await;
        if read.is_ok() || self.is_current(&connection) {
            return read;
        }
        // Its session had ended.
        self.connection(&server.name).await?.catalogue(self, offer).await
    }

    async fn read_warm(&self, server: &Upstream, offer: Offer) -> Option<Arc<Catalogue>> {
        let mut catalogue = Catalogue::new();
        let mut cursor = None;
        for _ in 0..PAGES {
            let params = cursor.map_or_else(|| "{}".to_owned(), |cursor| format!(r#"{{"cursor":{cursor}}}"#));
            let page = self.upstreams.list_warm(&server.name, offer.list(), &params).await?;
            let page: &RawValue = serde_json::from_slice(&page).ok()?;
            cursor = catalogue.add(&server.name, offer, page);
            if cursor.is_none() {
                break;
            }
        }
        catalogue.read = Instant::now();
        Some(Arc::new(catalogue))
    }
}
