//! Tokens.

use chrono::{TimeDelta, Utc};
use emergent_store::{
    Grants, MOST_TOKENS, McpAllowList, NewToken, NewTokenError, Page, PageRequest, ProjectId, Scope, Store, Token,
    TokenFilter, TokenId, Tool,
};
use emergent_types::WorkspaceId;

use crate::support::TestStore;

fn new_token(store: &TestStore, hash: u8) -> NewToken {
    NewToken {
        project: store.default_project(),
        name: format!("token {hash}"),
        grants: Grants::on_project(Scope::ALL.to_vec()),
        hash: [hash; 32],
        expires_at: Some(Utc::now() + TimeDelta::hours(1)),
    }
}

fn with_servers(new: NewToken, mcp: McpAllowList) -> NewToken {
    NewToken { grants: Grants { mcp: Some(mcp), ..new.grants }, ..new }
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
    let of = |project| TokenFilter { project: Some(project), ..TokenFilter::default() };
    assert_eq!(list(&store, of(store.default_project())).await, [newer.clone(), older.clone()]);
    assert_eq!(list(&store, of(ProjectId::generate())).await, []);
    let project = store.projects_ensure("another").await.unwrap();
    let foreign = store.tokens_create(NewToken { project, ..new_token(&store, 3) }).await.unwrap();
    assert_eq!(list(&store, TokenFilter::default()).await, [foreign.clone(), newer.clone(), older.clone()]);
    assert_eq!(store.tokens_get(foreign.id).await.unwrap(), Some(foreign.clone()));
    let by_project = TokenFilter { project_name: Some("another".to_owned()), ..TokenFilter::default() };
    assert_eq!(list(&store, by_project.clone()).await, [foreign]);
    assert_eq!(list(&store, TokenFilter { project: Some(store.default_project()), ..by_project }).await, []);
    let by_name = TokenFilter { name: Some(older.name.clone()), ..TokenFilter::default() };
    assert_eq!(list(&store, by_name).await, [older]);
}

/// All tokens that a filter finds, read in pages of two.
async fn list(store: &TestStore, filter: TokenFilter) -> Vec<Token> {
    let (mut all, mut cursor) = (Vec::new(), None);
    loop {
        let Page { items, next } = store.tokens_list(&filter, PageRequest { limit: 2, cursor }).await.unwrap();
        assert!(items.len() <= 2);
        all.extend(items);
        cursor = next;
        if cursor.is_none() {
            return all;
        }
    }
}

fn numbered(store: &TestStore, number: u64) -> NewToken {
    let mut hash = [0; 32];
    hash[..8].copy_from_slice(&number.to_be_bytes());
    NewToken { hash, ..new_token(store, 0) }
}

#[tokio::test]
async fn a_project_has_no_more_tokens_that_work_than_it_may_have() {
    let store = TestStore::open().await;
    let first = store.tokens_create(numbered(&store, 0)).await.unwrap();
    for number in 1..MOST_TOKENS {
        store.tokens_create(numbered(&store, number)).await.unwrap();
    }
    let refused = store.tokens_create(numbered(&store, MOST_TOKENS)).await;
    assert!(matches!(refused, Err(NewTokenError::TooMany)), "{refused:?}");
    let project = store.projects_ensure("another").await.unwrap();
    store.tokens_create(NewToken { project, ..new_token(&store, 9) }).await.unwrap();
    store.tokens_revoke(store.default_project(), first.id).await.unwrap();
    store.tokens_create(numbered(&store, MOST_TOKENS)).await.unwrap();
}

#[tokio::test]
async fn of_tokens_that_work_no_longer_the_newest_are_kept() {
    let store = TestStore::open().await;
    let expired = |number| NewToken { expires_at: Some(Utc::now()), ..numbered(&store, number) };
    let first = store.tokens_create(expired(0)).await.unwrap();
    for number in 1..1_005 {
        store.tokens_create(expired(number)).await.unwrap();
    }
    assert_eq!(store.tokens_get(first.id).await.unwrap(), None);
    assert_eq!(list(&store, TokenFilter::default()).await.len(), 1_001, "a thousand, and the last one");
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
    assert_eq!(list(&store, TokenFilter::default()).await.len(), 1);
}

#[tokio::test]
async fn what_a_token_may_use_is_kept_with_it() {
    let store = TestStore::open().await;
    let list = McpAllowList::try_from(vec!["clock".to_owned(), "files__read".to_owned()]).unwrap();
    let new = with_servers(new_token(&store, 1), list.clone());
    let token = store.tokens_create(new).await.unwrap();
    assert_eq!(token.grants.mcp, Some(list));
    assert_eq!(store.tokens_find_by_hash(&[1; 32]).await.unwrap(), Some(token));
    let nothing = with_servers(new_token(&store, 2), McpAllowList::default());
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

#[tokio::test]
async fn grants_come_back_as_they_were_given() {
    let store = TestStore::open().await;
    let grants = Grants {
        is_administrator: true,
        is_operator: false,
        workspace: Some(WorkspaceId::generate()),
        tools: Some([Tool::Read, Tool::Grep].into()),
        ..Grants::on_project(vec![Scope::AdminRead])
    };
    let made = store.tokens_create(NewToken { grants: grants.clone(), ..new_token(&store, 1) }).await.unwrap();
    assert_eq!(store.tokens_get(made.id).await.unwrap().unwrap().grants, grants);
}

/// A release from before the grants left tokens without them.
#[tokio::test]
async fn the_tokens_of_the_default_project_from_before_are_administrators_and_all_are_operators() {
    let store = TestStore::open().await;
    let other = store.projects_ensure("team").await.unwrap();
    let first = store.tokens_create(new_token(&store, 1)).await.unwrap();
    let foreign = store.tokens_create(NewToken { project: other, ..new_token(&store, 2) }).await.unwrap();
    for column in ["is_administrator", "is_operator", "workspace_id", "tools"] {
        store.execute(&format!("ALTER TABLE tokens DROP COLUMN {column}")).await;
    }
    store.execute("DELETE FROM seaql_migrations WHERE version = 'm2026_11_30_000001_token_grants'").await;
    let upgraded = Store::open(&store.url).await.unwrap();
    let granted = async |token: &Token| upgraded.tokens_get(token.id).await.unwrap().unwrap().grants;
    let all = Grants::on_project(Scope::ALL.to_vec());
    assert_eq!(granted(&first).await, Grants { is_administrator: true, ..all.clone() });
    assert_eq!(granted(&foreign).await, all);
}
