//! The servers that share the database: which of them drives a workspace, and which of them take new ones.

use std::sync::Arc;

use emergent_store::{ProjectId, ServerRow, StateKind, Store, StoreError};
use emergent_types::{ServerId, WorkspaceId};
use tokio::sync::watch;

use crate::{cluster::lease::Lease, workspace::registry::Registry};

/// The server that answers requests about a workspace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WorkspaceOwner {
    /// This server: it drives the workspace, or no server does any more, or there is no such workspace.
    Here,
    /// Another server, which drives the workspace.
    Elsewhere(Box<Peer>),
}

/// Another server of the installation, with the facts that a request to it needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// The server.
    pub server: ServerRow,
    /// The project that owns the requested workspace.
    pub project: ProjectId,
}

/// The servers of the installation, and this server's place among them.
pub struct Servers {
    store: Store,
    registry: Arc<Registry>,
    lease: Arc<Lease>,
}

// === impl Servers ===

impl Servers {
    pub(crate) fn new(store: Store, registry: Arc<Registry>, lease: Arc<Lease>) -> Self {
        Self { store, registry, lease }
    }

    /// Returns this server's id.
    pub fn id(&self) -> ServerId {
        self.store.server_id()
    }

    /// Lists every server that shares the store, this one among them, the oldest first.
    ///
    /// # Errors
    /// [`StoreError`] when the store fails.
    pub async fn list(&self) -> Result<Vec<ServerRow>, StoreError> {
        self.store.servers_list().await
    }

    /// Makes sure that this server may change its workspaces now. Code that works beside the service on the same lease
    /// asks first.
    ///
    /// # Errors
    /// [`StoreError`] says why not.
    pub async fn ensure_lease(&self) -> Result<(), StoreError> {
        self.lease.ensure().await
    }

    /// Renews the lease where it may have run out. Ignores a store that is away: meanwhile no other server can take
    /// workspaces over either. Costs nothing while the lease is fresh.
    pub async fn freshen(&self) {
        self.lease.freshen().await;
    }

    /// Returns a counter that changes whenever rows may have become another server's, or this server's.
    pub fn changes_of_ownership(&self) -> watch::Receiver<u64> {
        self.lease.ownership()
    }

    /// Finds the server that answers requests about a workspace. Reads no row where this server drives the workspace.
    ///
    /// # Errors
    /// [`StoreError`] when the store fails.
    pub async fn locate_owner(&self, id: WorkspaceId) -> Result<WorkspaceOwner, StoreError> {
        self.lease.freshen().await;
        if self.registry.get(id).is_some() {
            return Ok(WorkspaceOwner::Here);
        }
        let Some(row) = self.store.workspaces_find(id).await? else { return Ok(WorkspaceOwner::Here) };
        if row.server == self.store.server_id() || row.state.word() == StateKind::Destroyed {
            return Ok(WorkspaceOwner::Here);
        }
        let server = self.store.servers_find(row.server).await?;
        Ok(server.map_or(WorkspaceOwner::Here, |server| {
            WorkspaceOwner::Elsewhere(Box::new(Peer { server, project: row.project }))
        }))
    }

    /// Lists the live servers besides this one that take new workspaces.
    ///
    /// # Errors
    /// [`StoreError`] when the store fails.
    pub async fn others_that_take_new(&self) -> Result<Vec<ServerRow>, StoreError> {
        let servers = self.store.servers_list().await?.into_iter();
        Ok(servers.filter(|server| server.alive && !server.draining && server.id != self.store.server_id()).collect())
    }

    /// Returns the URLs or titles of the other servers that take new workspaces, for the message of a refusal.
    pub(crate) async fn names_of_others(&self) -> Vec<String> {
        let others = self.others_that_take_new().await.unwrap_or_default();
        others.iter().map(|server| server.url.clone().unwrap_or_else(|| server.title())).collect()
    }

    /// Returns whether this server refuses new workspaces. Does not ask the store.
    pub fn is_draining(&self) -> bool {
        self.lease.is_draining()
    }

    /// Makes this server refuse new workspaces, or accept them again; the choice outlasts restarts.
    ///
    /// # Errors
    /// [`StoreError`] when the store fails.
    pub async fn set_draining(&self, draining: bool) -> Result<(), StoreError> {
        self.store.servers_set_draining(draining).await?;
        self.lease.set_draining(draining);
        tracing::info!(draining, "draining was switched");
        Ok(())
    }
}
