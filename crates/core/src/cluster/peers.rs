//! The servers that share the database: which of them drives a workspace, and which of them take new ones.

use std::sync::Arc;

use emergent_store::{ProjectId, ServerRow, StateKind, StoreError};
use emergent_types::{ServerId, WorkspaceId};

use crate::orchestrator::Orchestrator;

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

// === impl Orchestrator ===

impl Orchestrator {
    /// Finds the server that answers requests about a workspace. Reads no row where this server drives the workspace.
    pub(crate) async fn locate_owner(&self, id: WorkspaceId) -> Result<WorkspaceOwner, StoreError> {
        self.freshen().await;
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

    /// Returns the live servers besides this one that take new workspaces.
    pub(crate) async fn others_that_take_new(&self) -> Result<Vec<ServerRow>, StoreError> {
        let servers = self.store.servers_list().await?.into_iter();
        Ok(servers.filter(|it| it.alive && !it.draining && it.id != self.store.server_id()).collect())
    }

    /// Returns the URLs or titles of the other servers that take new workspaces, for the message of a refusal.
    pub(crate) async fn names_of_others(&self) -> Vec<String> {
        let others = self.others_that_take_new().await.unwrap_or_default();
        others.iter().map(|server| server.url.clone().unwrap_or_else(|| server.title())).collect()
    }

    /// Makes this server refuse new workspaces from now on, or accept them again.
    pub(crate) async fn set_draining(self: &Arc<Self>, draining: bool) -> Result<(), StoreError> {
        self.store.servers_set_draining(draining).await?;
        self.lease.set_draining(draining);
        self.pool.look_again();
        tracing::info!(draining, "draining was switched");
        Ok(())
    }

    pub(crate) fn server_id(&self) -> ServerId {
        self.store.server_id()
    }
}
