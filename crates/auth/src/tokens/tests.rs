//! Two servers on one database, and a database that goes away.

use std::time::Duration;

use chrono::TimeDelta;
use emergent_store::{DatabaseUrl, Grants, NewToken, Scope};
use emergent_test_postgres::Cluster;

use super::*;

/// The time that anything may take on a machine that has other things to do.
const DEADLINE: Duration = Duration::from_secs(60);

async fn store_in(directory: &tempfile::TempDir) -> Store {
    Store::open(&DatabaseUrl::sqlite(directory.path().join("test.sqlite"))).await.unwrap()
}

async fn new_token(store: &Store, expires_in: Option<TimeDelta>) -> (TokenSecret, Token) {
    let secret = TokenSecret::generate();
    let new = NewToken {
        project: store.default_project(),
        name: "test".to_owned(),
        grants: Grants::on_project(Scope::ALL.to_vec()),
        hash: secret.hash(),
        expires_at: expires_in.map(|span| Utc::now() + span),
    };
    let token = store.tokens_create(new).await.unwrap();
    (secret, token)
}

async fn found(tokens: &Tokens, secret: &TokenSecret) -> LivePrincipal {
    tokens.find(secret).await.unwrap().expect("the token is valid")
}

async fn end_of(grant: &LivePrincipal) -> PrincipalEnd {
    timeout(DEADLINE, grant.ended()).await.expect("the token ends in time")
}

#[tokio::test]
async fn what_another_server_ends_ends_here() {
    let directory = tempfile::tempdir().unwrap();
    let store = store_in(&directory).await;
    let (here, project) = (Tokens::new(store.clone()), store.default_project());
    let (revoked, rotated, left) =
        (new_token(&store, None).await, new_token(&store, None).await, new_token(&store, None).await);
    let grants = [found(&here, &revoked.0).await, found(&here, &rotated.0).await, found(&here, &left.0).await];
    let mut ends = here.ends();
    // As another server does it: nothing of this one's memory is told.
    store.tokens_revoke(project, revoked.1.id).await.unwrap();
    assert_eq!(end_of(&grants[0]).await, PrincipalEnd::Revoked);
    assert_eq!(ends.recv().await.unwrap(), revoked.1.id);
    let new_secret = TokenSecret::generate();
    store.tokens_rotate(project, rotated.1.id, new_secret.hash()).await.unwrap();
    assert_eq!(end_of(&grants[1]).await, PrincipalEnd::Revoked);
    for secret in [&revoked.0, &rotated.0] {
        assert!(here.find(secret).await.unwrap().is_none());
    }
    found(&here, &new_secret).await;
    found(&here, &left.0).await;
    assert!(timeout(Duration::ZERO, grants[2].ended()).await.is_err(), "it was not changed");
}

#[tokio::test]
async fn what_this_server_ends_ends_at_once_and_what_expires_at_its_time() {
    let directory = tempfile::tempdir().unwrap();
    let store = store_in(&directory).await;
    let tokens = Tokens::new(store.clone());
    let (short, (secret, token)) =
        (new_token(&store, Some(TimeDelta::seconds(2))).await, new_token(&store, None).await);
    let (short, grant) = (tokens.find(&short.0).await.unwrap(), found(&tokens, &secret).await);
    store.tokens_revoke(store.default_project(), token.id).await.unwrap();
    tokens.forget(token.id);
    assert_eq!(timeout(Duration::ZERO, grant.ended()).await, Ok(PrincipalEnd::Revoked));
    if let Some(grant) = short {
        assert_eq!(end_of(&grant).await, PrincipalEnd::Revoked);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_store_is_away_a_token_is_believed_for_a_while_and_no_longer() {
    let cluster = Cluster::start().unwrap();
    let store = Store::open(&cluster.database().await.unwrap().parse().unwrap()).await.unwrap();
    let tokens = Tokens::believing(store.clone(), Duration::from_secs(10));
    let ((secret, _), (unseen, _)) = (new_token(&store, None).await, new_token(&store, None).await);
    let grant = found(&tokens, &secret).await;
    cluster.stop().unwrap();
    found(&tokens, &secret).await;
    assert!(tokens.find(&unseen).await.is_err(), "nobody knows whether it is valid");
    assert_eq!(end_of(&grant).await, PrincipalEnd::Unconfirmed);
    assert!(tokens.find(&secret).await.is_err(), "it is believed no longer");
    cluster.start_again().unwrap();
    let again = async {
        loop {
            match tokens.find(&secret).await {
                Ok(grant) => break grant,
                Err(_) => sleep(Duration::from_millis(100)).await,
            }
        }
    };
    assert!(timeout(DEADLINE, again).await.expect("the store is back").is_some());
}
