//! Keeps this server's lease, and takes over the workspaces of servers whose leases have run out.

use std::{collections::HashMap, sync::Arc, time::Duration};

use emergent_store::{Engines, TakenOver};
use emergent_types::error_chain;
use tokio::time::interval;

use super::Reconciler;

/// The interval between renewals of the lease.
const RENEW: Duration = Duration::from_secs(10);

// === impl Reconciler ===

impl Reconciler {
    /// Renews the lease and takes over what dead servers leave, for the life of the service.
    pub(crate) async fn keep_lease(self: Arc<Self>) {
        let mut ticks = interval(RENEW);
        while self.tasks.goes_on(&mut ticks).await {
            let reachable = self.lease.ask_engines().await;
            match self.lease.renew().await {
                Ok(()) => {
                    self.lease.hold_engines().await;
                    self.take_over(&reachable).await;
                }
                Err(error) => tracing::warn!(reason = error_chain(&error), "the server's lease could not be renewed"),
            }
        }
    }

    /// Takes over the workspaces of dead servers on engines that this server can reach.
    async fn take_over(self: &Arc<Self>, reachable: &Engines) {
        let servers = match self.store.servers_list().await {
            Ok(servers) => servers,
            Err(error) => return tracing::warn!(reason = error_chain(&error), "the other servers could not be listed"),
        };
        let dead = servers.iter().filter(|server| !server.alive && server.id != self.store.server_id());
        let shared = |engines: &Engines| {
            let same = engines.iter().filter(|(provider, engine)| reachable.get(provider) == Some(engine));
            same.map(|(provider, _)| *provider).collect::<Vec<_>>()
        };
        let dead = dead.map(|server| (server, shared(&server.engines))).filter(|(_, shared)| !shared.is_empty());
        let dead = dead.collect::<Vec<_>>();
        let mut acting = HashMap::new();
        for registered in self.providers.iter().filter(|_| !dead.is_empty()) {
            acting.insert(registered.provider.kind(), self.lease.acting_on(registered).await);
        }
        for (dead, mut shared) in dead {
            shared.retain(|provider| acting.get(provider).is_none_or(|acting| !acting.contains(&dead.id)));
            if shared.is_empty() {
                continue;
            }
            match self.store.servers_take_over(dead.id, &shared).await {
                Ok(TakenOver { workspaces: rows, mcp_servers: 0 }) if rows.is_empty() => {}
                Ok(TakenOver { workspaces: rows, mcp_servers }) => {
                    let workspaces = rows.len();
                    tracing::warn!(server = %dead.title(), workspaces, mcp_servers, "took over what a dead server had");
                    self.lease.note_changed_ownership();
                    for row in &rows {
                        self.guests.enter(row);
                    }
                    // Beside this loop: a guest that does not answer must not cost this server its own lease.
                    let (reconciler, ids) = (Arc::clone(self), rows.into_iter().map(|row| row.id).collect::<Vec<_>>());
                    self.tasks.spawn(async move { reconciler.look_again_at_all(ids.into_iter()).await });
                }
                Err(error) => {
                    tracing::warn!(reason = error_chain(&error), "a dead server's workspaces could not be taken over")
                }
            }
        }
    }
}
