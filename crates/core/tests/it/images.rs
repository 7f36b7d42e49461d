//! The images that a project may use.

use emergent_core::{CoreConfig, ImageError, RegistryLogin};
use emergent_provider::{ContainerKind, ImageAccess, ImageRef, RegistryCredentials, SandboxSpec, UsedImage};
use emergent_store::ProjectId;
use emergent_types::{NetworkPolicy, ResourceLimits, WorkspaceId};

use crate::support::{Fixture, config};

fn image(text: &str) -> ImageRef {
    text.parse().unwrap()
}

fn login(host: &str, project: Option<&str>, username: &str) -> RegistryLogin {
    let credentials = RegistryCredentials { username: username.to_owned(), password: "p".to_owned() };
    RegistryLogin { host: host.to_owned(), project: project.map(str::to_owned), credentials }
}

/// How a project may use an image, and who it logs in as.
async fn begin(
    fixture: &Fixture,
    project: ProjectId,
    image: &ImageRef,
) -> Result<(ImageAccess, Option<String>), ImageError> {
    let begun = fixture.service.images().begin(project, image, &fixture.engine).await?;
    let spec = SandboxSpec {
        warm: false,
        workspace: WorkspaceId::generate(),
        kind: ContainerKind::AgentWorkspace,
        image: image.clone(),
        access: ImageAccess::Operator,
        snapshot: None,
        registry: None,
        limits: ResourceLimits { cpu: 1.0, memory_bytes: 0, disk_bytes: 0, pids: 0 },
        network: NetworkPolicy::None,
        volumes: Vec::new(),
    };
    let spec = begun.apply(&spec);
    Ok((spec.access, spec.registry.map(|login| login.username)))
}

#[tokio::test]
async fn an_image_that_nobody_has_pulled_is_the_operators_to_admit() {
    let fixture = Fixture::start_with(CoreConfig { allowed_images: vec!["a:*".to_owned()], ..config() }).await;
    fixture.engine.set_pulls();
    fixture.engine.set_image("sha256:here");
    let project = fixture.project;
    assert_eq!(begin(&fixture, project, &config().default_image).await.unwrap().0, ImageAccess::Operator);
    assert_eq!(begin(&fixture, project, &image("docker.io/library/a:1")).await.unwrap().0, ImageAccess::Admitted);
    let refused = begin(&fixture, project, &image("b:1")).await.unwrap_err();
    assert!(matches!(&refused, ImageError::NotAdmitted(_)) && refused.to_string().contains("WORKSPACE_ALLOWED_IMAGES"));
    assert!(fixture.store.pulled_images(&image("b:1")).await.unwrap().is_empty(), "a refusal records nothing");
}

#[tokio::test]
async fn what_was_pulled_for_one_project_is_pulled_by_another_one_with_its_own_login() {
    let registries = vec![
        login("r.example", None, "everybody"),
        login("r.example", Some("one"), "one"),
        login("s.example", Some("one"), "one"),
    ];
    let fixture = Fixture::start_with(CoreConfig { registries, ..config() }).await;
    fixture.engine.set_pulls();
    let one = fixture.store.projects_ensure("one").await.unwrap();
    let other = fixture.store.projects_ensure("other").await.unwrap();
    let private = image("r.example/a:1");
    let begun = fixture.service.images().begin(one, &private, &fixture.engine).await.unwrap();
    let used = UsedImage { id: "sha256:pulled".to_owned(), bytes: 7 };
    fixture.service.images().record(&begun, Some(&used)).await.unwrap();
    fixture.engine.set_image("sha256:pulled");
    let pulled = |id: Option<&str>| ImageAccess::Pulled(id.map(str::to_owned));
    let (access, who) = begin(&fixture, one, &private).await.unwrap();
    assert_eq!((access, who.as_deref()), (pulled(Some("sha256:pulled")), Some("one")));
    let (access, who) = begin(&fixture, other, &private).await.unwrap();
    assert_eq!((access, who.as_deref()), (pulled(None), Some("everybody")));
    fixture.engine.set_image("");
    assert_eq!(begin(&fixture, other, &image("s.example/a:1")).await.unwrap(), (pulled(None), None));
}

#[tokio::test]
async fn a_pull_that_comes_to_nothing_makes_no_image_anybodys() {
    let fixture = Fixture::start().await;
    fixture.engine.set_pulls();
    let images = fixture.service.images();
    let begun = images.begin(fixture.project, &image("a:1"), &fixture.engine).await.unwrap();
    images.give_up(&begun).await;
    // Later somebody loads an image of that name.
    fixture.engine.set_image("sha256:loaded");
    let refused = images.begin(fixture.project, &image("a:1"), &fixture.engine).await.unwrap_err();
    assert!(matches!(refused, ImageError::NotAdmitted(_)));
}
