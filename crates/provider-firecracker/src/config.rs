//! What the operator decides.

use emergent_firecracker_manager::Host;
use emergent_provider::{ImageRef, Isolation, ServerId};
use secrecy::SecretString;

/// The settings of the provider.
#[derive(Debug)]
pub struct FirecrackerConfig {
    /// Which server this is.
    pub server: ServerId,
    /// The weakest isolation that is taken.
    pub require_isolation: Isolation,
    /// The image that the template `default` stands for.
    pub default_image: ImageRef,
    /// Where machines run.
    pub place: Where,
}

/// Where machines run.
#[derive(Debug)]
pub enum Where {
    /// On this host, looked after by this process.
    Local(Box<Host>),
    /// Behind a manager's REST API.
    Remote {
        /// Its address.
        url: String,
        /// Its API key.
        token: Option<SecretString>,
    },
}
