//! Tokens.

use chrono::{TimeDelta, Utc};
use emergent_store::{McpAllowList, NewToken, ProjectId, Scope, TokenId};

use crate::support::TestStore;

fn new_token(store: &TestStore, hash: u8) -> NewToken {
    NewToken {
        project: store.default_project(),
        name: format!("token {hash}"),
        scopes: Scope::ALL.to_vec(),
        mcp: None,
        hash: [hash; 32],
        expires_at: Some(Utc::now() + TimeDelta::hours(1)),
    }
}

#[tokio::test]
async fn a_token_is_found_by_its_hash_only() {
    let store = TestStore::open().await;
    assert!(!store.tokens_any().await.unwrap());
    let token = store.tokens_create(new_token(&store, 1)).await.unwrap();
    assert!(store.tokens_any().await.unwrap());
    assert_eq!(store.tokens_find_by_hash(&[1; 32]).await.unwrap(), Some(token.clone()));
    assert_eq!(store.tokens_find_by_hash(&[2; 32]).await.unwrap(), None);
    assert!(token.is_valid(Utc::now()));
    assert!(!token.is_valid(Utc::now() + TimeDelta::hours(2)));
}

#[tokio::test]
async fn tokens_are_listed_newest_first_for_their_project() {
    let store = TestStore::open().await;
    let older = store.tokens_create(new_token(&store, 1)).await.unwrap();
    let newer = store.tokens_create(new_token(&store, 2)).await.unwrap();
    assert_eq!(store.tokens_list(Some(store.default_project())).await.unwrap(), [newer, older]);
    assert_eq!(store.tokens_list(Some(ProjectId::generate())).await.unwrap(), []);
    let project = store.projects_ensure("another").await.unwrap();
    let foreign = store.tokens_create(NewToken { project, ..new_token(&store, 3) }).await.unwrap();
    assert_eq!(store.tokens_list(None).await.unwrap().first(), Some(&foreign));
    assert_eq!(store.tokens_get(foreign.id).await.unwrap(), Some(foreign));
}

#[tokio::test]
async fn a_revoked_token_stays_revoked_since_the_first_time() {
    let store = TestStore::open().await;
    let (project, token) = (store.default_project(), store.tokens_create(new_token(&store, 1)).await.unwrap());
    let first = store.tokens_revoke(project, token.id).await.unwrap().unwrap();
    assert!(!first.is_valid(Utc::now()));
    let second = store.tokens_revoke(project, token.id).await.unwrap().unwrap();
    assert_eq!(second.revoked_at, first.revoked_at);
    assert_eq!(store.tokens_rotate(project, token.id, [9; 32]).await.unwrap(), None);
    assert_eq!(store.tokens_revoke(ProjectId::generate(), token.id).await.unwrap(), None);
    assert_eq!(store.tokens_revoke(project, TokenId::generate()).await.unwrap(), None);
}

#[tokio::test]
async fn rotation_replaces_the_hash() {
    let store = TestStore::open().await;
    let (project, token) = (store.default_project(), store.tokens_create(new_token(&store, 1)).await.unwrap());
    let rotated = store.tokens_rotate(project, token.id, [2; 32]).await.unwrap().unwrap();
    assert_eq!((rotated.id, rotated.created_at), (token.id, token.created_at));
    assert!(rotated.rotated_at.is_some());
    assert_eq!(store.tokens_find_by_hash(&[1; 32]).await.unwrap(), None);
    assert_eq!(store.tokens_find_by_hash(&[2; 32]).await.unwrap(), Some(rotated));
}

#[tokio::test]
async fn two_tokens_never_share_a_hash() {
    let store = TestStore::open().await;
    store.tokens_create(new_token(&store, 1)).await.unwrap();
    assert!(store.tokens_create(new_token(&store, 1)).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_servers_that_start_at_once_one_makes_the_first_token() {
    let store = TestStore::open().await;
    let asks = (0..8).map(|turn| {
        let (server, new) = (store.store.clone(), new_token(&store, turn));
        async move { server.tokens_create_first(new).await.unwrap() }
    });
    let made = asks.collect::<tokio::task::JoinSet<_>>().join_all().await;
    assert_eq!(made.iter().flatten().count(), 1);
    assert_eq!(store.tokens_list(Some(store.default_project())).await.unwrap().len(), 1);
}

#[tokio::test]
async fn what_a_token_may_use_is_kept_with_it() {
    let store = TestStore::open().await;
    let list = McpAllowList::try_from(vec!["clock".to_owned(), "files__read".to_owned()]).unwrap();
    let new = NewToken { mcp: Some(list.clone()), ..new_token(&store, 1) };
    let token = store.tokens_create(new).await.unwrap();
    assert_eq!(token.mcp, Some(list));
    assert_eq!(store.tokens_find_by_hash(&[1; 32]).await.unwrap(), Some(token));
    let nothing = NewToken { mcp: Some(McpAllowList::default()), ..new_token(&store, 2) };
    let token = store.tokens_create(nothing).await.unwrap();
    assert_eq!(store.tokens_find_by_hash(&[2; 32]).await.unwrap(), Some(token));
}

#[tokio::test]
async fn a_change_of_any_token_is_counted_and_leaves_the_valid_ones() {
    let store = TestStore::open().await;
    let project = store.default_project();
    let mut tokens = Vec::new();
    for hash in 1..=4 {
        tokens.push(store.tokens_create(new_token(&store, hash)).await.unwrap());
    }
    let hashes = [[1; 32], [2; 32], [3; 32], [4; 32], [5; 32]];
    let valid = async || {
        let mut valid = store.tokens_valid(&hashes, Utc::now()).await.unwrap();
        valid.sort_unstable();
        valid
    };
    let before = store.tokens_changes().await.unwrap();
    assert_eq!(valid().await, [[1; 32], [2; 32], [3; 32], [4; 32]]);
    store.tokens_revoke(project, tokens[0].id).await.unwrap();
    store.tokens_rotate(project, tokens[1].id, [5; 32]).await.unwrap();
    assert_eq!(store.tokens_changes().await.unwrap(), before + 2);
    assert_eq!(valid().await, [[3; 32], [4; 32], [5; 32]]);
    assert!(store.tokens_valid(&hashes, Utc::now() + TimeDelta::hours(2)).await.unwrap().is_empty());
}
