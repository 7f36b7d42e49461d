//! References of images, in one canonical form: whoever compares two texts compares what they mean.

use std::{fmt, str::FromStr};

/// The names of the engine's default registry, which may stand in front of a repository.
const DEFAULT_REGISTRIES: [&str; 2] = ["docker.io", "index.docker.io"];
/// The namespace of repositories there that have none.
const DEFAULT_NAMESPACE: &str = "library/";
/// The tag of a reference that has neither tag nor digest.
const DEFAULT_TAG: &str = "latest";
/// The prefix of this server's own images on the engine: snapshots, and the guest's carrier.
const OWN: &str = "emergent-";
const LONGEST: usize = 255;
const LONGEST_TAG: usize = 128;

/// An image reference such as `ubuntu:22.04` or `registry.example:5000/team/image@sha256:…`, in canonical form: without
/// the default registry and its namespace, with a tag or a digest, never with both. An id of an image is no reference.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ImageRef(String);

/// A text that cannot be an [`ImageRef`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidImage {
    /// The text does not have the form of a reference.
    #[error(
        "an image reference is [registry[:port]/]name[:tag][@sha256:digest], the name in lower case, 255 characters at \
         most"
    )]
    Malformed,
    /// The text is, or may be taken for, the id of an image.
    #[error("an image is given by its name and never by its id; write name:tag or name@sha256:digest")]
    Id,
    /// The text names an image that belongs to this software.
    #[error("images called emergent-… are the server's own; `snapshot_id` makes a workspace from a snapshot")]
    Own,
}

// === impl ImageRef ===

impl ImageRef {
    /// A reference that a row has. One that was recorded before references had a canonical form stays as it is.
    pub fn recorded(text: &str) -> Self {
        text.parse().unwrap_or_else(|_| Self(text.to_owned()))
    }

    /// The reference as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The registry's host, with its port, where the reference names one; `None` means the engine's default registry.
    pub fn registry_host(&self) -> Option<&str> {
        let (first, _) = self.0.split_once('/')?;
        is_registry(first).then_some(first)
    }
}

/// Whether the first part of a reference is a registry, by the engine's own rule.
fn is_registry(first: &str) -> bool {
    first.contains(['.', ':']) || first == "localhost" || first.bytes().any(|byte| byte.is_ascii_uppercase())
}

fn is_host(text: &str) -> bool {
    let (host, port) = text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port)));
    let label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    host.split('.').all(label) && port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0))
}

/// Whether a part of a repository's path is one: words of `a-z0-9`, between them one dot, one or two underscores, or
/// dashes.
fn is_component(text: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let between = text.split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit()).filter(|gap| !gap.is_empty());
    text.bytes().next().is_some_and(word) && text.bytes().last().is_some_and(word) && { between }
        .all(|gap| matches!(gap, "." | "_" | "__") || gap.bytes().all(|byte| byte == b'-'))
}

fn is_tag(text: &str) -> bool {
    text.len() <= LONGEST_TAG
        && text.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric() || first == b'_')
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

fn is_hexadecimal(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

fn is_digest(text: &str) -> bool {
    text.strip_prefix("sha256:").is_some_and(|digits| digits.len() == 64 && is_hexadecimal(digits))
}

impl FromStr for ImageRef {
    type Err = InvalidImage;

    fn from_str(text: &str) -> Result<Self, InvalidImage> {
        if !(1..=LONGEST).contains(&text.len()) {
            return Err(InvalidImage::Malformed);
        }
        if text.starts_with("sha256:") {
            return Err(InvalidImage::Id);
        }
        let (name, digest) = text.split_once('@').map_or((text, None), |(name, digest)| (name, Some(digest)));
        let (registry, path) = match name.split_once('/') {
            Some((first, rest)) if is_registry(first) => (Some(first), rest),
            _ => (None, name),
        };
        let (path, tag) = path.rsplit_once(':').map_or((path, None), |(path, tag)| (path, Some(tag)));
        let well_formed = registry.is_none_or(is_host)
            && path.split('/').all(is_component)
            && tag.is_none_or(is_tag)
            && digest.is_none_or(is_digest);
        if !well_formed {
            return Err(InvalidImage::Malformed);
        }
        let registry =
            registry.map(str::to_ascii_lowercase).filter(|host| !DEFAULT_REGISTRIES.contains(&host.as_str()));
        let path = match registry {
            None => path.strip_prefix(DEFAULT_NAMESPACE).filter(|name| !name.contains('/')).unwrap_or(path),
            Some(_) => path,
        };
        if registry.is_none() {
            match path.split_once('/') {
                // It would be read as a registry.
                Some((first, _)) if is_registry(first) => return Err(InvalidImage::Malformed),
                Some(_) => {}
                None if path.starts_with(OWN) => return Err(InvalidImage::Own),
                None if is_hexadecimal(path) && (path.len() == 64 || (tag, digest) == (None, None)) => {
                    return Err(InvalidImage::Id);
                }
                None => {}
            }
        }
        let host = registry.map(|host| host + "/").unwrap_or_default();
        // A digest stands for one image whatever the tag says.
        let which = match (tag, digest) {
            (_, Some(digest)) => format!("@{digest}"),
            (tag, None) => format!(":{}", tag.unwrap_or(DEFAULT_TAG)),
        };
        let text = format!("{host}{path}{which}");
        if text.len() > LONGEST { Err(InvalidImage::Malformed) } else { Ok(Self(text)) }
    }
}

impl fmt::Display for ImageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn canonical(text: &str) -> String {
        text.parse::<ImageRef>().unwrap_or_else(|error| panic!("{text}: {error}")).to_string()
    }

    #[test]
    fn a_reference_has_one_form() {
        for (written, meant) in [
            ("ubuntu", "ubuntu:latest"),
            ("ubuntu:22.04", "ubuntu:22.04"),
            ("docker.io/library/ubuntu", "ubuntu:latest"),
            ("index.docker.io/team/app:1", "team/app:1"),
            ("library/ubuntu:1", "ubuntu:1"),
            ("library/team/app", "library/team/app:latest"),
            ("Registry.Example:5000/team/app", "registry.example:5000/team/app:latest"),
            ("localhost/a:B_c", "localhost/a:B_c"),
            ("a__b/c.d-e--f", "a__b/c.d-e--f:latest"),
            ("cafe:1", "cafe:1"),
        ] {
            assert_eq!(canonical(written), meant);
            assert_eq!(canonical(meant), meant, "the canonical form is its own");
        }
        assert_eq!(canonical(&format!("a:1@{DIGEST}")), format!("a@{DIGEST}"));
        assert_eq!("host:5000/a".parse::<ImageRef>().unwrap().registry_host(), Some("host:5000"));
        assert_eq!("team/a".parse::<ImageRef>().unwrap().registry_host(), None);
    }

    #[test]
    fn what_is_no_reference_is_refused() {
        let long = "a".repeat(256);
        for bad in [
            "",
            "-x",
            "a b",
            "a//b",
            "../a",
            "a:",
            "a\n",
            "A",
            "a:b:c",
            "a___b",
            "a..b",
            "a@sha256:ab",
            "a:1@",
            "/a",
            "a/",
            "docker.io/localhost/a",
            "docker.io/a.b/c",
            "host:0/a",
            "host:99999/a",
            "-.b/a",
            "[::1]:5000/a",
            "ü",
            &long,
        ] {
            assert_eq!(bad.parse::<ImageRef>(), Err(InvalidImage::Malformed), "{bad}");
        }
    }

    #[test]
    fn an_id_is_no_name() {
        let hexadecimal = DIGEST.trim_start_matches("sha256:");
        for id in ["e5", "1c043049d838", "sha256:e5", DIGEST, hexadecimal, "docker.io/library/e5"] {
            assert_eq!(id.parse::<ImageRef>(), Err(InvalidImage::Id), "{id}");
        }
        assert_eq!(format!("{hexadecimal}:latest").parse::<ImageRef>(), Err(InvalidImage::Id));
    }

    #[test]
    fn the_servers_own_images_cannot_be_named() {
        let snapshot = "emergent-snapshot-0199aaaa-0000-7000-8000-000000000000";
        for own in [
            snapshot.to_owned(),
            format!("{snapshot}:latest"),
            format!("docker.io/library/{snapshot}"),
            format!("library/{snapshot}:latest"),
            format!("index.docker.io/library/{snapshot}@{DIGEST}"),
            "emergent-guest-carrier:1".to_owned(),
        ] {
            assert_eq!(own.parse::<ImageRef>(), Err(InvalidImage::Own), "{own}");
        }
        assert_eq!(canonical("emergent/workspace"), "emergent/workspace:latest");
    }

    #[test]
    fn a_row_of_before_is_read_as_it_is() {
        assert_eq!(ImageRef::recorded("e5").as_str(), "e5");
        assert_eq!(ImageRef::recorded("ubuntu").as_str(), "ubuntu:latest");
    }
}
