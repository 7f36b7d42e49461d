//! The settings of the provider, which the operator decides.

use emergent_firecracker_manager::Host;
use emergent_provider::{ImageRef, Isolation};
use emergent_types::ServerId;
use secrecy::SecretString;

/// The settings of the provider.
#[derive(Debug)]
pub struct FirecrackerConfig {
    /// The id of this server.
    pub server: ServerId,
    /// The weakest isolation that is admitted.
    pub require_isolation: Isolation,
    /// The image for which the template `default` is used.
    pub default_image: ImageRef,
    /// The manager of machines.
    pub place: Where,
}

/// The manager of machines.
#[derive(Debug)]
pub enum Where {
    /// A manager in this process, for machines on this host.
    Local(Box<Host>),
    /// Behind a manager's REST API.
    Remote {
        /// The API's address.
        url: String,
        /// The API's key.
        token: Option<SecretString>,
    },
}
