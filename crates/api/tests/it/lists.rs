//! Lists: pages and filters.

use serde_json::Value;

use crate::harness::{Api, WORKSPACES};

fn names(page: &Value) -> Vec<&str> {
    page["items"].as_array().unwrap().iter().map(|item| item["name"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn pages_go_from_the_newest_to_the_oldest_and_miss_nothing() {
    let api = Api::start().await;
    for number in 0..5 {
        api.new_row(&format!("w{number}"), &[]).await;
    }
    let first = api.get(&format!("{WORKSPACES}?limit=2")).await.json();
    assert_eq!(names(&first), ["w4", "w3"]);
    api.new_row("newer", &[]).await;
    let second =
        api.get(&format!("{WORKSPACES}?limit=2&cursor={}", first["next_cursor"].as_str().unwrap())).await.json();
    assert_eq!(names(&second), ["w2", "w1"]);
    let third =
        api.get(&format!("{WORKSPACES}?limit=2&cursor={}", second["next_cursor"].as_str().unwrap())).await.json();
    assert_eq!(names(&third), ["w0"]);
    assert_eq!(third["next_cursor"], Value::Null);
}

#[tokio::test]
async fn filters_narrow_a_list() {
    let api = Api::start().await;
    api.new_row("a", &[("team", "red")]).await;
    api.new_row("b", &[("team", "blue")]).await;
    let list = async |query: &str| api.get(&format!("{WORKSPACES}?{query}")).await.json();
    assert_eq!(names(&list("label=team:red").await), ["a"]);
    assert_eq!(names(&list("name=b").await), ["b"]);
    assert_eq!(names(&list("state=creating,ready").await), ["b", "a"]);
    assert_eq!(names(&list("state=ready").await), Vec::<&str>::new());
    assert_eq!(names(&list("provider=e2b").await), Vec::<&str>::new());
    assert_eq!(names(&list("container_type=agent_workspace").await), ["b", "a"]);
}

#[tokio::test]
async fn a_workspace_is_shown_with_all_that_is_known() {
    let api = Api::start().await;
    let id = api.new_row("a", &[("team", "red")]).await;
    let shown = api.get(&format!("{WORKSPACES}/{id}")).await.json();
    assert_eq!(shown["id"], id.to_string());
    assert_eq!(shown["state"], "creating");
    assert_eq!(shown["labels"]["team"], "red");
    assert_eq!(shown["resource_limits"]["memory"], 1_u64 << 30);
}
