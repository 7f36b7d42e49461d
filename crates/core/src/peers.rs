//! The servers that share the database: who drives which workspace, and who takes new ones.

use std::sync::Arc;

use emergent_provider::{ServerId, WorkspaceId};
use emergent_store::{ProjectId, ServerRow, StateWord, StoreError};

use crate::inner::Core;

/// Where a request about a workspace belongs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Whereabouts {
    /// Here: this server drives it, or nobody does any more, or there is no such workspace.
    Here,
    /// Another server drives it.
    Elsewhere(Box<Peer>),
}

/// Another server of the installation, with what a request to it needs to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// The server.
    pub server: ServerRow,
    /// Whose workspace it is that is asked for.
    pub project: ProjectId,
}

// === impl Core ===

impl Core {
    /// Where a request about a workspace belongs. Of a workspace that this server drives no row is read.
    pub(crate) async fn whereabouts(&self, id: WorkspaceId) -> Result<Whereabouts, StoreError> {
        self.freshen().await;
        if self.registry.get(id).is_some() {
            return Ok(Whereabouts::Here);
        }
        let Some(row) = self.store.workspaces_find(id).await? else { return Ok(Whereabouts::Here) };
        if row.server == self.store.server_id() || row.state.word() == StateWord::Destroyed {
            return Ok(Whereabouts::Here);
        }
        let server = self.store.servers_find(row.server).await?;
        Ok(server.map_or(Whereabouts::Here, |server| {
            Whereabouts::Elsewhere(Box::new(Peer { server, project: row.project }))
        }))
    }

    /// The live servers besides this one that take new workspaces.
    pub(crate) async fn others_that_take_new(&self) -> Result<Vec<ServerRow>, StoreError> {
        let servers = self.store.servers_list().await?.into_iter();
        Ok(servers.filter(|it| it.alive && !it.draining && it.id != self.store.server_id()).collect())
    }

    /// What people call those servers, for a refusal.
    pub(crate) async fn names_of_others(&self) -> Vec<String> {
        let others = self.others_that_take_new().await.unwrap_or_default();
        others.iter().map(|server| server.url.clone().unwrap_or_else(|| server.title())).collect()
    }

    /// Takes no new workspaces from now on, or takes them again.
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
