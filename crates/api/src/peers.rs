//! The client for requests to the other servers of an installation.

use std::{sync::OnceLock, time::Duration};

use emergent_types::error_chain;
use reqwest::{Certificate, Client, redirect::Policy};

use crate::http::problem::{ProblemKind, Refusal};

/// The time that a connection to another server may take.
const CONNECT: Duration = Duration::from_secs(3);

/// The client for requests to other servers. Set up only when the first request is passed on.
#[derive(Default)]
pub struct Peers {
    authorities: Vec<Certificate>,
    client: OnceLock<Client>,
}

/// A file without certificates.
#[derive(Debug, thiserror::Error)]
#[error("there are no certificates in it; it takes PEM")]
pub struct UnusableAuthority;

// === impl Peers ===

impl Peers {
    /// Trusts these certificates (PEM) in addition to the system's own.
    ///
    /// # Errors
    /// [`UnusableAuthority`] when there are none.
    pub fn trusting(pem: &[u8]) -> Result<Self, UnusableAuthority> {
        let authorities = Certificate::from_pem_bundle(pem).unwrap_or_default();
        if authorities.is_empty() {
            return Err(UnusableAuthority);
        }
        Ok(Self { authorities, client: OnceLock::new() })
    }

    /// Returns the client.
    ///
    /// # Errors
    /// A problem when the client cannot be set up.
    pub(crate) fn client(&self) -> Result<&Client, Refusal> {
        if let Some(client) = self.client.get() {
            return Ok(client);
        }
        let client = Client::builder()
            .connect_timeout(CONNECT)
            .redirect(Policy::none())
            .no_proxy()
            .tls_certs_merge(self.authorities.iter().cloned());
        let client = client.build().map_err(|error| {
            tracing::error!(error = error_chain(&error), "the client for other servers could not be made");
            Refusal::new(ProblemKind::Internal, "the request could not be passed on; the server's log says why")
        })?;
        Ok(self.client.get_or_init(|| client))
    }
}
