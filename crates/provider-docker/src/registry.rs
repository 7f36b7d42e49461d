//! The registries that the engine may pull projects' images from: those in the public internet, and those that the
//! operator names. The engine can reach hosts that a project must not, such as services of its own host.

use std::{net::IpAddr, time::Duration};

use emergent_packet_filter::is_denied;
use emergent_provider::ImageRef;
use tokio::{net::lookup_host, time::timeout};

const HTTPS: u16 = 443;
const LOOKUP_DEADLINE: Duration = Duration::from_secs(5);

/// The registries that the operator names, as references have them: `host` or `host:port`.
#[derive(Debug, Clone, Default)]
pub(crate) struct Registries(Vec<String>);

// === impl Registries ===

impl Registries {
    pub(crate) fn new(named: Vec<String>) -> Self {
        Self(named.into_iter().map(|host| host.to_ascii_lowercase()).collect())
    }

    /// Whether the operator names the registry of an image.
    pub(crate) fn names(&self, image: &ImageRef) -> bool {
        image.registry_host().is_some_and(|host| self.0.iter().any(|named| named == host))
    }

    /// Checks that the registry of an image is in the public internet; the reason of a refusal is for people. The
    /// engine resolves the name again: an answer that changes in between is not noticed, but no contents of the host at
    /// that address come back.
    pub(crate) async fn check(&self, image: &ImageRef) -> Result<(), String> {
        let Some(registry) = image.registry_host() else { return Ok(()) };
        let refused = |why: &str| Err(format!("{registry} {why}; WORKSPACE_PRIVATE_REGISTRIES admits such a registry"));
        let with_port = if registry.contains(':') { registry.to_owned() } else { format!("{registry}:{HTTPS}") };
        let Ok(Ok(addresses)) = timeout(LOOKUP_DEADLINE, lookup_host(with_port)).await else {
            return refused("has no address that this server can find out");
        };
        match addresses.map(|address| address.ip()).all(is_public) {
            true => Ok(()),
            false => refused("is at a private, loopback or reserved address"),
        }
    }
}

/// Whether an address is in the public internet, by the ranges that workspaces with the network `outbound` may reach.
fn is_public(address: IpAddr) -> bool {
    let address = address.to_canonical();
    let is_unicast = match address {
        IpAddr::V4(_) => true,
        // 2000::/3, without 6to4 and NAT64, which have addresses of the older kind inside.
        IpAddr::V6(six) => matches!(six.segments()[0], 0x2000..=0x3fff) && six.segments()[0] != 0x2002,
    };
    is_unicast && !is_denied(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(text: &str) -> ImageRef {
        text.parse().unwrap()
    }

    #[test]
    fn addresses_that_are_not_public_are_known() {
        for private in [
            "127.0.0.1",
            "10.1.2.3",
            "169.254.169.254",
            "::1",
            "fd00::1",
            "::ffff:10.0.0.1",
            "64:ff9b::a00:1",
            "2002:a00:1::",
            "100.64.0.1",
            "0.0.0.0",
            "192.168.1.1",
            "fe80::1",
        ] {
            assert!(!is_public(private.parse().unwrap()), "{private}");
        }
        for public in ["1.1.1.1", "2606:4700:4700::1111"] {
            assert!(is_public(public.parse().unwrap()), "{public}");
        }
    }

    #[tokio::test]
    async fn only_the_operator_sends_the_engine_to_a_private_registry() {
        let registries = Registries::new(vec!["127.0.0.1:5000".to_owned()]);
        for private in ["127.0.0.1:8080/a/b:1", "localhost/a:1", "10.0.0.1/a:1", "nowhere.invalid/a:1"] {
            let reason = registries.check(&image(private)).await.unwrap_err();
            assert!(reason.contains("WORKSPACE_PRIVATE_REGISTRIES"), "{reason}");
        }
        assert!(registries.names(&image("127.0.0.1:5000/a:1")) && !registries.names(&image("127.0.0.1:5001/a:1")));
        assert_eq!(registries.check(&image("ubuntu:22.04")).await, Ok(()));
    }
}
