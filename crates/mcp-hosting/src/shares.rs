//! Workspaces whose `/workspace` a hosted server sees: of the same project, and on the same engine.

use std::collections::BTreeMap;

use emergent_core::{ListFilter, LookupError, PageRequest, StateKind, Workspace, WorkspaceId};
use emergent_store::{MCP_SERVERS_ON, McpServerRow, McpShare, ProjectId};

use crate::{
    HostingError, VolumeRequest,
    inner::Inner,
    sandbox::{MakeError, engine},
    validate::Volumes,
};

impl Inner {
    /// The volumes that are asked for, with the workspaces that they name.
    pub(crate) async fn volumes(
        &self,
        project: ProjectId,
        requested: Option<&BTreeMap<String, VolumeRequest>>,
    ) -> Result<Option<Volumes>, HostingError> {
        let Some(requested) = requested else { return Ok(None) };
        let mut volumes = Volumes::default();
        for (name, volume) in requested {
            match volume {
                VolumeRequest::Own { path } => {
                    volumes.own.insert(name.clone(), path.clone());
                }
                VolumeRequest::Workspace { workspace, path, read_only } => {
                    let workspace = self.shared_workspace(project, name, workspace).await?.as_uuid();
                    let share = McpShare { workspace, path: path.clone(), read_only: *read_only };
                    volumes.shares.insert(name.clone(), share);
                }
            }
        }
        Ok(Some(volumes))
    }

    /// A workspace that a server of the project can share.
    async fn shared_workspace(
        &self,
        project: ProjectId,
        volume: &str,
        given: &str,
    ) -> Result<WorkspaceId, HostingError> {
        let found = match given.parse() {
            Ok(id) => match self.workspaces.get(project, id).await {
                Ok(found) => Some(found).filter(|found| found.row.state.word() != StateKind::Destroyed),
                Err(LookupError::NotFound) => None,
                Err(LookupError::Disabled) => return Err(HostingError::Disabled),
                Err(LookupError::Store(error)) => return Err(error.into()),
            },
            Err(_) => self.workspace_named(project, volume, given).await?,
        };
        let field = || format!("volumes.{volume}.workspace");
        let Some(found) = found else {
            return Err(HostingError::NoWorkspace { field: field(), given: given.to_owned() });
        };
        let is_here = match &self.provider {
            Some(provider) if found.row.provider == MCP_SERVERS_ON => provider
                .inspect(found.row.id)
                .await
                .map_err(|source| HostingError::Engine { operation: "look for the workspace of", source })?
                .is_some(),
            _ => false,
        };
        if is_here {
            return Ok(found.row.id);
        }
        let message = format!(
            "a hosted server can share a workspace of the provider `{MCP_SERVERS_ON}` on its own engine; this one is on \
             `{}`, or on another engine",
            found.row.provider
        );
        Err(HostingError::invalid(field(), message))
    }

    /// The one workspace of this name.
    async fn workspace_named(
        &self,
        project: ProjectId,
        volume: &str,
        name: &str,
    ) -> Result<Option<Workspace>, HostingError> {
        let filter = ListFilter { name: Some(name.to_owned()), ..ListFilter::default() };
        let page = PageRequest { limit: 2, ..PageRequest::default() };
        let mut found = self.workspaces.list(project, filter, page).await.map_err(|error| match error {
            emergent_core::ListError::Disabled => HostingError::Disabled,
            emergent_core::ListError::Store(error) => error.into(),
            error => HostingError::invalid(format!("volumes.{volume}.workspace"), error.to_string()),
        })?;
        if found.items.len() > 1 {
            let message = format!("more than one workspace is called {name:?}; give the id");
            return Err(HostingError::invalid(format!("volumes.{volume}.workspace"), message));
        }
        Ok(found.items.pop())
    }

    /// Checks that the workspaces which a server shares are there.
    pub(crate) async fn check_shares(&self, row: &McpServerRow) -> Result<(), MakeError> {
        for (volume, share) in &row.spec.shares {
            let observed = self.provider()?.inspect(share.workspace.into()).await.map_err(engine("look for"))?;
            if observed.is_none() {
                return Err(MakeError::WorkspaceGone { volume: volume.clone(), workspace: share.workspace });
            }
        }
        Ok(())
    }
}
