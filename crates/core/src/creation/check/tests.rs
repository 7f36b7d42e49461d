//! Tests of the requests that are taken and of those that are refused.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::workspace::{
    request::{LimitsRequest, Ttl},
    validate::CPU,
};

fn config() -> CoreConfig {
    CoreConfig {
        enabled: true,
        default_provider: None,
        deployment_mode: crate::DeploymentMode::default(),
        warm_pool_size: 0,
        warm_pool_images: Vec::new(),
        max_concurrent: 10,
        max_mcp_servers: 10,
        disk_reserve: 0,
        default_ttl: TimeDelta::days(30),
        cleanup_interval: Duration::from_secs(3600),
        orphan_grace: chrono::TimeDelta::seconds(60),
        destroyed_retention: chrono::TimeDelta::days(30),
        leftover_retention: chrono::TimeDelta::days(14),
        default_idle: emergent_store::IdlePolicy::default(),
        alert_threshold_pct: 80,
        default_limits: ResourceLimits { cpu: 2.0, memory_bytes: 4 << 30, disk_bytes: 10 << 30, pids: 1024 },
        default_image: "emergent/workspace:latest".parse().unwrap(),
        allowed_images: Vec::new(),
        registries: Vec::new(),
        workspace_defaults: Default::default(),
        pulled_image_retention: TimeDelta::days(30),
        audit: crate::AuditConfig::default(),
        fault: None,
    }
}

fn checked(request: &NewWorkspace, globs: &[&str]) -> Result<Checked, NewWorkspaceError> {
    let globs = globs.iter().map(|glob| (*glob).to_owned()).collect::<Vec<_>>();
    check(request, &config(), &AllowedImages::new(&globs).unwrap())
}

/// The field that a request is refused for.
fn blamed(request: &NewWorkspace) -> String {
    match checked(request, &[]) {
        Err(NewWorkspaceError::Invalid { field, .. }) => field,
        Err(other) => panic!("refused otherwise: {other}"),
        Ok(_) => panic!("taken"),
    }
}

fn with_limits(limits: LimitsRequest) -> NewWorkspace {
    NewWorkspace { limits, ..NewWorkspace::default() }
}

fn with_label(key: &str, value: &str) -> NewWorkspace {
    NewWorkspace { labels: [(key.to_owned(), value.to_owned())].into(), ..NewWorkspace::default() }
}

fn with_variable(name: &str, value: &str) -> NewWorkspace {
    NewWorkspace { environment: [(name.to_owned(), value.to_owned())].into(), ..NewWorkspace::default() }
}

#[test]
fn what_is_left_open_is_decided_by_the_settings() {
    let checked = checked(&NewWorkspace::default(), &[]).unwrap();
    assert_eq!(checked.image.as_str(), "emergent/workspace:latest");
    assert_eq!(checked.limits, config().default_limits);
    let life = checked.expires_at.unwrap() - Utc::now();
    assert!((life - config().default_ttl).abs() < TimeDelta::minutes(1));
}

#[test]
fn a_hosted_server_lives_until_somebody_destroys_it() {
    let request = NewWorkspace { kind: ContainerKind::McpServer, ..NewWorkspace::default() };
    assert_eq!(checked(&request, &[]).unwrap().expires_at, None);
}

#[test]
fn absurd_numbers_are_refused_by_name() {
    for cpu in [0.0, -1.0, 0.05, 257.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        assert_eq!(blamed(&with_limits(LimitsRequest { cpu: Some(cpu), ..Default::default() })), "limits.cpu", "{cpu}");
    }
    for bytes in [0, 1, (64 << 20) - 1, u64::MAX] {
        let memory = LimitsRequest { memory_bytes: Some(bytes), ..Default::default() };
        assert_eq!(blamed(&with_limits(memory)), "limits.memory_bytes");
        let disk = LimitsRequest { disk_bytes: Some(bytes), ..Default::default() };
        assert_eq!(blamed(&with_limits(disk)), "limits.disk_bytes");
    }
    for pids in [0, 63, u32::MAX] {
        assert_eq!(blamed(&with_limits(LimitsRequest { pids: Some(pids), ..Default::default() })), "limits.pids");
    }
    for life in [Duration::ZERO, Duration::MAX] {
        let request = NewWorkspace { ttl: Some(Ttl::After(life)), ..NewWorkspace::default() };
        assert_eq!(blamed(&request), "ttl");
    }
}

#[test]
fn names_and_labels_are_text_that_can_be_shown() {
    for name in ["", "two\nlines", "\u{7f}", &"x".repeat(129)] {
        assert_eq!(blamed(&NewWorkspace { name: Some(name.to_owned()), ..NewWorkspace::default() }), "name");
    }
    for key in ["", "1st", "a b", "$x", &"k".repeat(64)] {
        assert_eq!(blamed(&with_label(key, "v")), "labels", "{key}");
    }
    assert_eq!(blamed(&with_label("key", &"v".repeat(257))), "labels.key");
    assert_eq!(blamed(&with_label("key", "\0")), "labels.key");
    let long = |count: u32| (0..count).map(|n| (format!("key{n:02}"), "v".repeat(251))).collect();
    let with_long = |count| NewWorkspace { labels: long(count), ..NewWorkspace::default() };
    assert!(checked(&with_long(64), &[]).is_ok(), "16 KiB");
    let mut more = with_long(64);
    more.labels.insert("key00".to_owned(), "v".repeat(252));
    assert_eq!(blamed(&more), "labels");
    let many = (0..65).map(|number| (format!("k{number}"), String::new())).collect();
    assert_eq!(blamed(&NewWorkspace { labels: many, ..NewWorkspace::default() }), "labels");
}

#[test]
fn variables_are_what_the_kernel_takes_and_their_values_are_never_repeated() {
    for name in ["", "1X", "A=B", "A B", "Ä", &"X".repeat(257)] {
        assert_eq!(blamed(&with_variable(name, "v")), "environment", "{name}");
    }
    for value in ["secret\0", &"secret".repeat(30_000)] {
        let refused = checked(&with_variable("TOKEN", value), &[]).err().unwrap().to_string();
        assert!(refused.starts_with("environment.TOKEN") && !refused.contains("secret"), "{refused}");
    }
    let large = (0..10).map(|number| (format!("V{number}"), "x".repeat(120_000))).collect();
    assert_eq!(blamed(&NewWorkspace { environment: large, ..NewWorkspace::default() }), "environment");
    let debug = format!("{:?}", with_variable("TOKEN", "hunter2"));
    assert!(debug.contains("TOKEN") && !debug.contains("hunter2"), "{debug}");
}

#[test]
fn only_images_that_a_glob_names_are_allowed_and_the_default_always_is() {
    let with_image = |image: &str| NewWorkspace { image: Some(image.parse().unwrap()), ..NewWorkspace::default() };
    let globs = ["ubuntu:*", "ghcr.io/team/**"];
    for allowed in
        ["ubuntu:22.04", "ubuntu", "docker.io/library/ubuntu:1", "ghcr.io/team/a/b:1", "emergent/workspace:latest"]
    {
        assert!(checked(&with_image(allowed), &globs).is_ok(), "{allowed}");
    }
    for refused in ["debian:12", "evil/ubuntu:22.04", "ghcr.io/other/a"] {
        let result = checked(&with_image(refused), &globs);
        assert!(matches!(result, Err(NewWorkspaceError::ImageNotAllowed { .. })), "{refused}");
        assert!(checked(&with_image(refused), &[]).is_ok(), "{refused}");
    }
    assert!(AllowedImages::new(&["[".to_owned()]).is_err());
}

proptest! {
    #[test]
    fn any_limits_are_taken_as_they_are_or_refused(
        cpu: Option<f64>, memory_bytes: Option<u64>, disk_bytes: Option<u64>, pids: Option<u32>,
    ) {
        let asked = LimitsRequest { cpu, memory_bytes, disk_bytes, pids };
        if let Ok(checked) = checked(&with_limits(asked), &[]) {
            prop_assert!(cpu.is_none_or(|cpu| cpu == checked.limits.cpu && CPU.contains(&cpu)));
            prop_assert!(memory_bytes.is_none_or(|bytes| bytes == checked.limits.memory_bytes));
            prop_assert!(disk_bytes.is_none_or(|bytes| bytes == checked.limits.disk_bytes));
            prop_assert!(pids.is_none_or(|pids| pids == checked.limits.pids));
        }
    }
}

#[test]
fn a_name_can_be_told_from_the_path_behind_it() {
    for name in ["a:b", "a/b", ":", "/"] {
        assert_eq!(blamed(&NewWorkspace { name: Some(name.to_owned()), ..NewWorkspace::default() }), "name", "{name}");
    }
    assert!(checked(&NewWorkspace { name: Some("a.b-c d".to_owned()), ..NewWorkspace::default() }, &[]).is_ok());
}

#[test]
fn limits_are_refused_in_the_units_that_people_write() {
    let limits = LimitsRequest { disk_bytes: Some(50 << 20), ..LimitsRequest::default() };
    let Err(error) = checked(&with_limits(limits), &[]) else { panic!("50M of disk is taken") };
    assert!(error.to_string().contains("64M to 1024T"), "{error}");
}
