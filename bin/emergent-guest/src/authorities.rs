//! The operator's certificate authorities, in the one file that programs inside are told of.
//!
//! A program that is given a bundle trusts that bundle alone, so the file has the image's own authorities, too.

use std::{collections::BTreeMap, io, path::Path};

use emergent_guest_proto::WorkspaceDefaults;

use crate::own_files;

/// The file's name in the guest's directory.
pub(crate) const BUNDLE: &str = "ca-bundle.pem";
/// The bundles that images have: of Debian and its kin, and of Red Hat's.
const OF_IMAGE: [&str; 2] = ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt"];
/// The variables that OpenSSL and Go, curl, git, Python's requests, pip, Node.js and npm, cargo and the AWS SDKs read.
const VARIABLES: [&str; 8] = [
    "SSL_CERT_FILE",
    "CURL_CA_BUNDLE",
    "GIT_SSL_CAINFO",
    "REQUESTS_CA_BUNDLE",
    "PIP_CERT",
    "NODE_EXTRA_CA_CERTS",
    "CARGO_HTTP_CAINFO",
    "AWS_CA_BUNDLE",
];

/// Writes the bundle, or removes it where the operator has no authorities.
///
/// # Errors
/// When the file cannot be written or removed.
pub(crate) fn write(bundle: &Path, defaults: &WorkspaceDefaults) -> io::Result<()> {
    let Some(authorities) = &defaults.authorities else {
        return own_files::clear(bundle);
    };
    // An image without any is no failure: the operator's are all that there is then.
    let of_image = OF_IMAGE.iter().find_map(|path| own_files::read_of_image(Path::new(path))).unwrap_or_default();
    let all = [of_image.as_slice(), b"\n", authorities.as_bytes(), b"\n"].concat();
    if own_files::read(bundle)?.is_some_and(|there| there == all) {
        // Also on a full disk a guest starts again.
        return Ok(());
    }
    own_files::replace(bundle, 0o644, &[&all])
}

/// The variables by which programs find the bundle; none where there is none.
pub(crate) fn variables(bundle: &Path, defaults: &WorkspaceDefaults) -> BTreeMap<String, String> {
    let names = VARIABLES.iter().filter(|_| defaults.authorities.is_some());
    names.map(|name| ((*name).to_owned(), bundle.to_string_lossy().into_owned())).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_bundle_has_the_operators_authorities_and_goes_with_them() {
        let folder = tempfile::tempdir().unwrap();
        let bundle = folder.path().join(BUNDLE);
        let mut defaults = WorkspaceDefaults { authorities: Some("-- ours --".to_owned()), ..Default::default() };
        write(&bundle, &defaults).unwrap();
        let text = fs::read_to_string(&bundle).unwrap();
        let of_image = OF_IMAGE.iter().find_map(|path| fs::read_to_string(path).ok()).unwrap_or_default();
        assert!(text.starts_with(&of_image) && text.ends_with("-- ours --\n"), "{text}");
        assert_eq!(variables(&bundle, &defaults)["PIP_CERT"], bundle.to_string_lossy());

        defaults.authorities = None;
        for _ in 0..2 {
            write(&bundle, &defaults).unwrap();
            assert!(!bundle.exists() && variables(&bundle, &defaults).is_empty());
        }
    }
}
