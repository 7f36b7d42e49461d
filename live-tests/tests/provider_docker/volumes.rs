//! Volumes that sandboxes share.

use std::process::Command;

use anyhow::ensure;
use emergent_guest_proto::RunAs;
use emergent_live_tests::{Case, Runtime};
use emergent_provider::{ContainerKind, Lifecycle as _, NamedVolume, SandboxSpec, VolumeSource};
use emergent_types::NetworkPolicy;

use crate::sandbox::{Bench, Unobserved, full, refused, spec};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("a_volume_of_the_engine_is_filled_by_one_sandbox_and_only_read_by_others", of_the_engine),
        Case::new("a_workspaces_volume_goes_with_the_workspace_whoever_mounts_it", of_a_workspace),
    ]
}

/// Removes a volume that belongs to no sandbox.
struct Removed(String);

impl Drop for Removed {
    fn drop(&mut self) {
        drop(Command::new("docker").args(["volume", "rm", "--force", &self.0]).output());
    }
}

fn server_with(name: &str, source: VolumeSource) -> anyhow::Result<SandboxSpec> {
    let volume = NamedVolume { name: name.to_owned(), path: "/seen".to_owned(), source };
    Ok(SandboxSpec { kind: ContainerKind::McpServer, volumes: vec![volume], ..spec(NetworkPolicy::None)? })
}

async fn of_the_engine(runtime: Runtime) -> anyhow::Result<()> {
    let name = format!("test-{}", emergent_types::SandboxId::generate());
    let _removed = Removed(format!("emergent-shared-{name}"));
    let bench = Bench::new(runtime)?;
    let filler = bench.sandbox(&server_with(&name, VolumeSource::Engine { read_only: false })?).await?;
    filler.output("echo filled > /seen/file").await?;
    bench.provider.destroy(filler.workspace, &Unobserved).await.map_err(full)?;
    let reader = bench.sandbox(&server_with(&name, VolumeSource::Engine { read_only: true })?).await?;
    ensure!(reader.output("cat /seen/file").await? == "filled");
    for user in [RunAs::Agent, RunAs::Root] {
        let planted = reader.bash_as("echo planted > /seen/file || mount -o remount,rw /seen", user).await?;
        ensure!(planted.exit_code != Some(0), "{planted:?}");
    }
    ensure!(reader.output("cat /seen/file").await? == "filled");
    Ok(())
}

async fn of_a_workspace(runtime: Runtime) -> anyhow::Result<()> {
    let bench = Bench::new(runtime)?;
    let workspace = bench.sandbox(&spec(NetworkPolicy::None)?).await?;
    workspace.output("echo here > file").await?;
    let source = VolumeSource::Workspace { workspace: workspace.workspace, read_only: false };
    let sharer = bench.sandbox(&server_with("code", source)?).await?;
    ensure!(sharer.output("cat /seen/file; echo there > /seen/answer").await? == "here");
    ensure!(workspace.output("cat answer").await? == "there");
    bench.provider.destroy(workspace.workspace, &Unobserved).await.map_err(full)?;
    let id = workspace.workspace.to_string();
    ensure!(bench.engine.resources_of(&id).await?.is_empty(), "the workspace left something");
    // Nor does a sandbox that is made too late bring it back.
    refused(&bench.provider, &server_with("code", source)?).await?;
    ensure!(bench.engine.resources_of(&id).await?.is_empty(), "something of the workspace came back");
    Ok(())
}
