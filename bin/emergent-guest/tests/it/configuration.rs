//! The hand-over of a sandbox that was made ahead of need to its workspace.

use std::os::unix::fs::MetadataExt as _;

use emergent_guest_proto::{ErrorCode, Hello};
use serde_json::{Value, json};

use crate::support::Guest;

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_new_sandbox_is_nobodys() {
    let Some(guest) = Guest::start().await else { return };
    let client = guest.client().await;
    let hello: Hello = client.get("/v1/hello").await.unwrap();
    assert!(!hello.is_configured);
    let refused = client.tool::<Value>("bash", json!({"command": "id", "user": "root"})).await.unwrap_err();
    assert_eq!((refused.code, refused.field.as_deref()), (ErrorCode::PermissionDenied, Some("user")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_was_handed_over_reaches_every_process_and_outlives_the_guest() {
    let Some(mut guest) = Guest::start().await else { return };
    let client = guest.client().await;
    client.configure(json!({"environment": {"GREETING": "grüße", "PATH": "/opt/bin:/usr/bin:/bin"}})).await;
    let environ = "cat /proc/self/environ | tr '\\0' '\\n' | grep -aE '^(GREETING|PATH|HOME)=' | sort";
    let expected = |shown: &str| shown.contains("GREETING=grüße\n") && shown.contains("PATH=/opt/bin:/usr/bin:/bin\n");
    let shown = client.sh(environ).await;
    assert!(expected(&shown), "{shown}");
    guest.restart_after_kill().await;
    let client = guest.client().await;
    assert!(client.get::<Hello>("/v1/hello").await.unwrap().is_configured);
    let shown = client.sh(environ).await;
    assert!(expected(&shown), "{shown}");
    let kept = std::fs::metadata(guest.state().join("private/hand-over.json")).unwrap();
    assert_eq!((kept.mode() & 0o777, kept.uid()), (0o600, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_hand_over_is_kept_whatever_its_length() {
    for length in [0, 4_000, 40_000] {
        let Some(mut guest) = Guest::start().await else { return };
        let value = "v".repeat(length);
        guest.client().await.configure(json!({"environment": {"LONG": value}})).await;
        guest.restart_after_kill().await;
        assert_eq!(guest.client().await.sh("printf %s \"$LONG\" | wc -c").await.trim(), length.to_string());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn the_operators_defaults_hold_where_the_workspace_has_nothing_of_its_own() {
    let Some(mut guest) = Guest::start().await else { return };
    let defaults =
        json!({"environment": {"MIRROR": "operator", "OWN": "operator"}, "authorities": "-- a certificate --"});
    let body = json!({"environment": {"OWN": "workspace"}, "allow_root": false, "defaults": defaults});
    guest.client().await.configure(body).await;
    for _ in 0..2 {
        let client = guest.client().await;
        let shown = client.sh("echo $MIRROR $OWN $PIP_CERT $SSL_CERT_FILE; tail -n 2 $PIP_CERT").await;
        let bundle = guest.state().join("ca-bundle.pem");
        let bundle = bundle.to_str().unwrap();
        assert_eq!(shown.trim_end(), format!("operator workspace {bundle} {bundle}\n\n-- a certificate --"));
        guest.restart_after_kill().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_cannot_be_an_environment_is_refused_and_changes_nothing() {
    let Some(guest) = Guest::start().await else { return };
    let client = guest.client().await;
    for environment in [json!({"A=B": "c"}), json!({"": "c"}), json!({"A": "c\0d"})] {
        let body = json!({"environment": environment, "allow_root": true});
        let refused = client.post::<Value>("/v1/hand-over", &body).await.unwrap_err();
        assert_eq!(refused.code, ErrorCode::InvalidRequest, "{refused:?}");
    }
    assert!(!client.get::<Hello>("/v1/hello").await.unwrap().is_configured);
}
