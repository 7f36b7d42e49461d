//! `emergent firecracker net-helper`.

use std::os::unix::fs::DirBuilderExt as _;

use anyhow::Context as _;
use emergent_microvm_net::{
    NetworkConfig, Networks,
    helper::{Helper, HelperConfig, keep_only_net_admin},
    host_resolvers,
};
use tokio::signal::unix::{SignalKind, signal};

use crate::{cli::NetHelperArgs, serve};

/// Listens, and drops every privilege that serving does not need.
pub(super) fn prepare(arguments: &mut NetHelperArgs) -> anyhow::Result<()> {
    if let Some(directory) = arguments.socket.parent() {
        let mut builder = std::fs::DirBuilder::new();
        builder
            .recursive(true)
            .mode(0o755)
            .create(directory)
            .with_context(|| format!("{} cannot be made; name another place with --socket", directory.display()))?;
    }
    arguments.listening = Some(Helper::listen(&arguments.socket)?);
    Ok(keep_only_net_admin(arguments.user)?)
}

/// Serves until a stop signal.
pub(super) async fn run(arguments: NetHelperArgs) -> anyhow::Result<()> {
    serve::log_to_stderr(&arguments.log, false).context("--log")?;
    let helper = arguments.listening.context("the helper has not been prepared")?;
    let resolvers = if arguments.resolver.is_empty() { host_resolvers() } else { arguments.resolver };
    tracing::info!(
        socket = %arguments.socket.display(), pool = %arguments.pool, users = ?arguments.allow_uid, ?resolvers,
        "the network helper serves"
    );
    let networks =
        Networks::new(NetworkConfig { pool: arguments.pool, allow: arguments.allow, resolvers, fault: None });
    let config = HelperConfig { users: arguments.allow_uid.into_iter().collect(), owners: arguments.owner_uid };
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let stop = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    Ok(helper.serve(networks, config, stop).await?)
}
