//! A server with TLS, whose certificate a private authority has signed.

use std::{fs, path::Path};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

use crate::harness::{Server, run};

/// Writes an authority's certificate, and a server's with its key, signed by it.
fn write_certificates(directory: &Path) {
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority_key = KeyPair::generate().unwrap();
    fs::write(directory.join("ca.pem"), authority.self_signed(&authority_key).unwrap().pem()).unwrap();

    let issuer = Issuer::new(authority, authority_key);
    let key = KeyPair::generate().unwrap();
    let server = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    fs::write(directory.join("cert.pem"), server.signed_by(&key, &issuer).unwrap().pem()).unwrap();
    fs::write(directory.join("key.pem"), key.serialize_pem()).unwrap();
}

#[test]
fn a_private_authority_is_trusted_where_it_is_named_and_nowhere_else() {
    let files = tempfile::tempdir().unwrap();
    write_certificates(files.path());
    let file = |name: &str| files.path().join(name).to_str().unwrap().to_owned();
    let flags = ["--tls-cert", &file("cert.pem"), "--tls-key", &file("key.pem")];
    let server = Server::start_with(tempfile::tempdir().unwrap(), &flags);

    let untrusted = server.client(&["token", "ls"]);
    assert_eq!(untrusted.status, Some(1));
    assert!(untrusted.stderr.contains("invalid peer certificate"), "{}", untrusted.stderr);

    let trusted = server.client(&["token", "ls", "--ca", &file("ca.pem")]);
    assert_eq!(trusted.status, Some(0), "{}", trusted.stderr);
    let trusted = run(server.client_command(&["token", "ls"]).env("EMERGENT_CA_FILE", file("ca.pem")));
    assert_eq!(trusted.status, Some(0), "{}", trusted.stderr);
    let empty = run(server.client_command(&["token", "ls"]).env("EMERGENT_CA_FILE", ""));
    assert!(empty.stderr.contains("invalid peer certificate"), "{}", empty.stderr);

    for (name, says) in [("key.pem", "holds no certificates"), ("missing.pem", "cannot be read")] {
        let refused = server.client(&["token", "ls", "--ca", &file(name)]);
        assert_eq!((refused.status, refused.stdout.as_str()), (Some(1), ""));
        assert!(refused.stderr.contains(says), "{}", refused.stderr);
    }
}
