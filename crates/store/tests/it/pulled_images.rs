//! The images that were pulled, each for one project.

use chrono::{TimeDelta, Utc};
use emergent_provider::ImageRef;

use crate::support::TestStore;

fn image(text: &str) -> ImageRef {
    text.parse().unwrap()
}

#[tokio::test]
async fn what_was_pulled_for_one_project_is_recorded_for_that_one() {
    let store = TestStore::open().await;
    let (one, other) = (store.projects_ensure("one").await.unwrap(), store.projects_ensure("other").await.unwrap());
    let image = image("registry.example/a:1");
    assert!(store.pulled_images(&image).await.unwrap().is_empty());
    store.pulled_images_begin(one, &image).await.unwrap();
    assert_eq!(store.pulled_images(&image).await.unwrap()[0].id, None);
    store.pulled_images_record(one, &image, "sha256:a", 10).await.unwrap();
    // Another pull of it does not forget what was pulled before, and neither does one that comes to nothing.
    store.pulled_images_begin(one, &image).await.unwrap();
    store.pulled_images_give_up(one, &image).await.unwrap();
    store.pulled_images_begin(other, &image).await.unwrap();
    store.pulled_images_give_up(other, &image).await.unwrap();
    let known = store.pulled_images(&image).await.unwrap();
    assert_eq!(known.len(), 1);
    assert_eq!((known[0].project, known[0].id.as_deref(), known[0].bytes), (one, Some("sha256:a"), 10));
    store.pulled_images_record(one, &image, "sha256:b", 20).await.unwrap();
    store.pulled_images_begin(one, &"b:1".parse().unwrap()).await.unwrap();
    store.pulled_images_record(one, &"b:1".parse().unwrap(), "sha256:c", 3).await.unwrap();
    assert_eq!(store.pulled_images_bytes(one).await.unwrap(), 23);
    assert_eq!(store.pulled_images_bytes(other).await.unwrap(), 0);
}

#[tokio::test]
async fn only_what_is_not_used_is_forgotten() {
    let store = TestStore::open().await;
    let project = store.projects_ensure("one").await.unwrap();
    let image = image("a:1");
    store.pulled_images_begin(project, &image).await.unwrap();
    let (past, future) = (Utc::now() - TimeDelta::hours(1), Utc::now() + TimeDelta::hours(1));
    assert!(store.pulled_images_unused(past).await.unwrap().is_empty());
    assert!(!store.pulled_images_forget(project, &image, past).await.unwrap());
    assert_eq!(store.pulled_images_unused(future).await.unwrap().len(), 1);
    assert!(store.pulled_images_forget(project, &image, future).await.unwrap());
    assert!(store.pulled_images(&image).await.unwrap().is_empty());
}
