//! The privileged helper: the one process with `CAP_NET_ADMIN`, behind a Unix socket that few may use.
//!
//! ```text
//!  manager (no privileges) ── JSON lines ──▶ helper (CAP_NET_ADMIN, nothing else) ──▶ kernel, nft
//! ```
//!
//! A client's user is the one that the kernel names, whatever the client says. The pool, the allowed ranges and the
//! owners of interfaces are set when the helper is started, and no client can change them.

mod privileges;

use std::{
    collections::BTreeSet,
    fs::Permissions,
    io,
    ops::RangeInclusive,
    os::unix::fs::{FileTypeExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::{
    io::BufReader,
    net::{UnixListener, UnixStream},
    sync::Semaphore,
    task::JoinSet,
};

use crate::{
    MachineNetwork, NetworkError, Networks,
    wire::{self, Answer, Request},
};

pub use privileges::{PrivilegeError, User, keep_only_net_admin};

const MAX_CONNECTIONS: usize = 16;
/// A client that does not read its answer is let go of.
const WRITE_DEADLINE: Duration = Duration::from_secs(10);

/// Whom the helper serves.
#[derive(Debug, Clone)]
pub struct HelperConfig {
    /// The users that may ask.
    pub users: BTreeSet<u32>,
    /// The users that interfaces may be given to, besides those that may ask: those that VMMs run as.
    pub owners: Vec<RangeInclusive<u32>>,
}

/// A socket that is listened on, not served yet.
#[derive(Debug)]
pub struct Helper {
    listener: std::os::unix::net::UnixListener,
    path: PathBuf,
}

/// The reason for which the helper could not listen.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Another helper does.
    #[error("another helper answers on {0}; stop it first")]
    InUse(PathBuf),
    /// Something else is in the place.
    #[error("{0} is there and is no socket; name another place, or remove it")]
    NoSocket(PathBuf),
    /// The socket cannot be made.
    #[error("cannot listen on {path}")]
    Io {
        /// The path of the socket.
        path: PathBuf,
        /// The kernel's word.
        #[source]
        source: io::Error,
    },
}

// === impl Helper ===

impl Helper {
    /// Listens; called while there still is the privilege to write in the socket's directory. A socket that a helper
    /// left behind is replaced.
    ///
    /// # Errors
    /// See [`ListenError`].
    pub fn listen(path: &Path) -> Result<Self, ListenError> {
        let failed = |source| ListenError::Io { path: path.to_owned(), source };
        match path.symlink_metadata() {
            Ok(metadata) if !metadata.file_type().is_socket() => return Err(ListenError::NoSocket(path.to_owned())),
            Ok(_) if std::os::unix::net::UnixStream::connect(path).is_ok() => {
                return Err(ListenError::InUse(path.to_owned()));
            }
            Ok(_) => std::fs::remove_file(path).map_err(failed)?,
            Err(_) => {}
        }
        let listener = std::os::unix::net::UnixListener::bind(path).map_err(failed)?;
        // Anybody may connect; who is served is decided by the kernel's word for who they are.
        std::fs::set_permissions(path, Permissions::from_mode(0o666)).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        Ok(Self { listener, path: path.to_owned() })
    }

    /// Serves until `stop` ends. What was begun by then is finished; interfaces stay as they are.
    ///
    /// # Errors
    /// Where the socket cannot be used at all.
    pub async fn serve(
        self,
        networks: Networks,
        config: HelperConfig,
        stop: impl Future<Output = ()>,
    ) -> Result<(), ListenError> {
        let failed = |source| ListenError::Io { path: self.path.clone(), source };
        let listener = UnixListener::from_std(self.listener).map_err(failed)?;
        let shared = Arc::new((networks, config));
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let mut connections = JoinSet::new();
        let mut stop = std::pin::pin!(stop);
        loop {
            tokio::select! {
                () = &mut stop => break,
                Some(_) = connections.join_next() => {}
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => {
                        // One too many is closed at once, and says so to a client by that.
                        let Ok(place) = places.clone().try_acquire_owned() else { continue };
                        let shared = shared.clone();
                        connections.spawn(async move {
                            let (networks, config) = &*shared;
                            if let Err(error) = converse(stream, networks, config).await {
                                tracing::info!(
                                    %error,
                                    "the network helper closed a client's connection after an error"
                                );
                            }
                            drop(place);
                        });
                    }
                    Err(error) => {
                        tracing::warn!(%error, "a connection could not be accepted");
                        // Out of descriptors, most likely: trying at once would only burn.
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                },
            }
        }
        // A change that was begun holds the lock; having it means that none is under way.
        let (networks, _) = &*shared;
        networks.at_rest().await;
        std::fs::remove_file(&self.path).ok();
        Ok(())
    }
}

async fn converse(stream: UnixStream, networks: &Networks, config: &HelperConfig) -> io::Result<()> {
    let uid = stream.peer_cred()?.uid();
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    if !config.may_ask(uid) {
        tracing::warn!(uid, "refused a user that the network helper does not serve");
        let reason = format!("user {uid} may not ask; start the helper with --allow-uid {uid}");
        return reply(&mut writer, &Answer::Failed(NetworkError::Refused { reason })).await;
    }
    while let Some(request) = wire::receive(&mut reader, wire::LONGEST_REQUEST).await? {
        let answer = carry_out(request, uid, networks, config).await.unwrap_or_else(Answer::Failed);
        reply(&mut writer, &answer).await?;
    }
    Ok(())
}

async fn reply(writer: &mut tokio::net::unix::OwnedWriteHalf, answer: &Answer) -> io::Result<()> {
    tokio::time::timeout(WRITE_DEADLINE, wire::send(writer, answer))
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

async fn carry_out(
    request: Request,
    uid: u32,
    networks: &Networks,
    config: &HelperConfig,
) -> Result<Answer, NetworkError> {
    Ok(match request {
        Request::Attach(attach) => {
            config.check_owner(uid, attach.owner)?;
            Answer::Attached(networks.attach(&attach.into()).await?.map(Into::into))
        }
        Request::Detach { machine } => {
            networks.detach(machine).await?;
            Answer::Detached
        }
        Request::List {} => Answer::Listed(networks.list().await?.into_iter().map(Into::into).collect()),
        Request::RemoveStrays { known } => {
            Answer::Removed(networks.remove_strays(&known).await?.into_iter().map(wire::Name).collect())
        }
        Request::Status {} => Answer::Status(networks.status().await?.into()),
    })
}

// === impl HelperConfig ===

impl HelperConfig {
    /// Root could do it all without us.
    fn may_ask(&self, uid: u32) -> bool {
        uid == 0 || self.users.contains(&uid)
    }

    /// An interface is what its owner reads and writes frames on, so it is given to nobody but those named.
    fn check_owner(&self, uid: u32, owner: u32) -> Result<(), NetworkError> {
        let is_named = self.users.contains(&owner) || self.owners.iter().any(|range| range.contains(&owner));
        if is_named || uid == 0 {
            return Ok(());
        }
        let reason = format!("interfaces are not given to user {owner}; start the helper with --owner-uid {owner}");
        Err(NetworkError::Refused { reason })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interfaces_go_to_nobody_but_those_named() {
        let config = HelperConfig { users: [1000].into(), owners: vec![20000..=20009] };
        assert!(config.may_ask(1000) && !config.may_ask(1001));
        assert!(config.check_owner(1000, 1000).is_ok() && config.check_owner(1000, 20009).is_ok());
        for owner in [0, 1001, 20010] {
            assert!(matches!(config.check_owner(1000, owner), Err(NetworkError::Refused { .. })), "{owner}");
        }
    }

    #[test]
    fn what_is_no_socket_is_left_alone_and_what_a_helper_left_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("net.sock");
        std::fs::write(&path, "mine").unwrap();
        assert!(matches!(Helper::listen(&path), Err(ListenError::NoSocket(_))));
        std::fs::remove_file(&path).unwrap();
        let first = Helper::listen(&path).unwrap();
        assert!(matches!(Helper::listen(&path), Err(ListenError::InUse(_))));
        drop(first);
        assert!(Helper::listen(&path).is_ok());
    }
}
