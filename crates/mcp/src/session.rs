//! One session of the older era: its client, and the connection to the child that serves the client.

use std::{collections::HashSet, sync::Arc};

use http::HeaderMap;

use crate::{
    child_connection::ChildConnection,
    event_buffer::Limits,
    session_client::{Opened, SessionClient},
};

/// The owner of a session, in the extensions of a request: a session answers to the owner who has begun it, and is not
/// there for others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionOwner(pub Box<str>);

/// The parts of a request's head that matter to sessions.
#[derive(Clone, Copy)]
pub(crate) struct Head<'a> {
    pub(crate) headers: &'a HeaderMap,
    pub(crate) owner: Option<&'a str>,
}

/// A session. Clones are the same session.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    pub(crate) client: Arc<SessionClient>,
    pub(crate) connection: Arc<ChildConnection>,
}

// === impl Session ===

impl Session {
    /// Begins a session, whose client the child serves from now on.
    pub(crate) fn begin(
        opened: Opened<'_>,
        connection: &Arc<ChildConnection>,
        capabilities: Option<HashSet<String>>,
        limits: Limits,
    ) -> Self {
        let client = Arc::new(SessionClient::new(opened, capabilities, limits));
        connection.join(&client);
        Self { client, connection: Arc::clone(connection) }
    }
}
