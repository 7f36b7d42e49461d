//! Tests of the values that the settings take.

use std::ffi::OsString;

use super::*;

fn read(variables: &[(&str, &str)]) -> Result<Config, String> {
    let mut settings = Settings::default();
    let mut faults = Vec::new();
    let environment = variables.iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
    settings.add_environment(environment, &mut faults);
    Config::read(&settings, faults).map_err(|error| error.to_string())
}

#[test]
fn without_any_setting_the_documented_defaults_hold() {
    let config = read(&[]).unwrap();
    assert!(!config.core.enabled);
    assert_eq!(config.core.default_provider, Some(ProviderKind::Docker));
    assert_eq!(config.core.max_concurrent, 10);
    assert_eq!(config.core.default_ttl, chrono::Duration::days(30));
    assert_eq!(config.core.cleanup_interval, Duration::from_secs(3600));
    assert_eq!(config.core.alert_threshold_pct, 80);
    assert_eq!(config.core.default_limits.memory_bytes, 4 << 30);
    assert_eq!(config.core.default_limits.disk_bytes, 10 << 30);
    assert_eq!(config.http.listen.to_string(), "127.0.0.1:7070");
    assert!(config.without_effect.is_empty());
}

#[test]
fn an_empty_or_auto_provider_chooses_by_itself() {
    for value in ["", "auto"] {
        assert_eq!(read(&[("WORKSPACE_DEFAULT_PROVIDER", value)]).unwrap().core.default_provider, None);
    }
}

#[test]
fn an_unknown_variable_of_ours_is_refused_with_what_was_meant() {
    let refusal = read(&[("WORKSPACE_MAX_CONCURENT", "3")]).unwrap_err();
    assert!(refusal.contains("did you mean WORKSPACE_MAX_CONCURRENT?"), "{refusal}");
    assert!(read(&[("HOME", "/root"), ("WORKSPACES", "1")]).is_ok());
}

#[test]
fn every_malformed_value_is_named_with_what_it_takes() {
    let cases = [
        ("ENABLE_AGENT_WORKSPACES", "yes"),
        ("WORKSPACE_DEFAULT_PROVIDER", "docker"),
        ("WORKSPACE_MAX_CONCURRENT", "0"),
        ("WORKSPACE_DEFAULT_TTL_DAYS", "-1"),
        ("WORKSPACE_CLEANUP_INTERVAL_MIN", "0"),
        ("WORKSPACE_ALERT_THRESHOLD_PCT", "101"),
        ("WORKSPACE_DEFAULT_CPU", "NaN"),
        ("WORKSPACE_DEFAULT_MEMORY", "4X"),
        ("WORKSPACE_DEFAULT_DISK", "1"),
        ("WORKSPACE_WARM_POOL_SIZE", "-1"),
        ("WORKSPACE_NETWORK_ALLOW", "10.0.0.0/33"),
        ("WORKSPACE_DEFAULT_IMAGE", "not an image"),
        ("WORKSPACE_REGISTRY_AUTH_FILE", "/does/not/exist"),
        ("WORKSPACE_REQUIRE_ISOLATION", "strong"),
        ("WORKSPACE_DEPLOYMENT_MODE", "cloud"),
        ("DATABASE_URL", "mysql://user:secret@host/db"),
        ("EMERGENT_DATA_DIR", "relative/path"),
        ("EMERGENT_LISTEN", "localhost"),
        ("EMERGENT_LOG_FORMAT", "xml"),
        ("EMERGENT_FAULT", "create.nothing"),
        ("EMERGENT_SECRET_KEY", "short"),
    ];
    for (name, value) in cases {
        let refusal = read(&[(name, value)]).unwrap_err();
        let named = if name == "WORKSPACE_REGISTRY_AUTH_FILE" { value } else { name };
        assert!(refusal.contains(named), "{name}: {refusal}");
        assert!(!refusal.contains("secret@"), "{refusal}");
    }
    let all: Vec<_> = cases.into_iter().collect();
    assert_eq!(read(&all).unwrap_err().lines().count(), cases.len() + 1, "all are named at once");
}

#[test]
fn an_address_that_others_reach_needs_tls_or_a_clear_word() {
    let refusal = read(&[("EMERGENT_LISTEN", "0.0.0.0:7070")]).unwrap_err();
    assert!(refusal.contains("EMERGENT_TLS_CERT"), "{refusal}");
    assert!(read(&[("EMERGENT_LISTEN", "0.0.0.0:7070"), ("EMERGENT_ALLOW_PLAINTEXT", "true")]).is_ok());
    assert!(read(&[("EMERGENT_TLS_CERT", "/cert.pem")]).unwrap_err().contains("EMERGENT_TLS_KEY"));
}

#[test]
fn a_file_gives_settings_that_the_environment_overrides() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("emergent.toml");
    std::fs::write(
        &path,
        "workspace_max_concurrent = 3\nWORKSPACE_DEFAULT_CPU = 0.5\nworkspace_allowed_images = [\"a\", \"b\"]\n",
    )
    .unwrap();
    let mut settings = Settings::default();
    let mut faults = Vec::new();
    settings.add_environment([("WORKSPACE_MAX_CONCURRENT".into(), "4".into())], &mut faults);
    settings.add_file(&path, &mut faults);
    let config = Config::read(&settings, faults).unwrap();
    assert_eq!(config.core.max_concurrent, 4);
    assert!((config.core.default_limits.cpu - 0.5).abs() < f64::EPSILON);
    assert_eq!(config.core.allowed_images, ["a", "b"]);

    std::fs::write(&path, "workspace_default_cpus = 2\n").unwrap();
    let mut faults = Vec::new();
    Settings::default().add_file(&path, &mut faults);
    assert!(faults[0].to_string().contains("did you mean WORKSPACE_DEFAULT_CPU?"), "{}", faults[0]);
}

#[test]
fn settings_without_effect_are_known() {
    let config = read(&[("WORKSPACE_WARM_POOL_SIZE", "2"), ("E2B_API_KEY", "e2b_1")]).unwrap();
    assert_eq!(config.without_effect, ["E2B_API_KEY"]);
}

#[test]
fn the_default_image_is_pooled_unless_others_are_named() {
    let images = |list| {
        let config = read(&[("WORKSPACE_WARM_POOL_IMAGES", list), ("WORKSPACE_DEFAULT_IMAGE", "a:1")]).unwrap();
        config.core.warm_pool_images.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(images(""), ["a:1"]);
    assert_eq!(images("b:1, c:1,b:1"), ["b:1", "c:1"]);
    let refusal = read(&[("WORKSPACE_WARM_POOL_IMAGES", "-x")]).unwrap_err();
    assert!(refusal.contains("WORKSPACE_WARM_POOL_IMAGES"), "{refusal}");
}

#[test]
fn docker_is_never_spoken_to_in_the_clear_where_tls_is_asked_for() {
    let docker = |host, verify| read(&[("DOCKER_HOST", host), ("DOCKER_TLS_VERIFY", verify)]);
    for host in ["tcp://docker.example:2376", "http://docker.example:2376"] {
        let refusal = docker(host, "1").unwrap_err();
        assert!(refusal.contains("DOCKER_TLS_VERIFY") && refusal.contains("unix:///path"), "{refusal}");
        for no in ["", "0"] {
            assert_eq!(docker(host, no).unwrap().docker.host.as_deref(), Some(host));
        }
    }
    assert!(docker("unix:///var/run/docker.sock", "1").is_ok());
    assert!(read(&[("DOCKER_TLS_VERIFY", "1")]).is_ok());
}

#[test]
fn variables_of_installations_are_for_all_projects_or_for_one() {
    let config = read(&[
        ("EMERGENT_MCP_INSTALL_ENV", "PIP_INDEX_URL=https://mirror.example/simple?a=b"),
        ("EMERGENT_MCP_INSTALL_ENV_OF_PROJECTS", "team-red:npm_config_//r.example/:_authToken=t:1, blue:A="),
    ]);
    let variables = config.unwrap().mcp.install_environment;
    let variables: Vec<_> =
        variables.iter().map(|it| (it.project.as_deref(), it.name.as_str(), it.value.as_str())).collect();
    assert_eq!(
        variables,
        [
            (None, "PIP_INDEX_URL", "https://mirror.example/simple?a=b"),
            (Some("team-red"), "npm_config_//r.example/:_authToken", "t:1"),
            (Some("blue"), "A", ""),
        ]
    );
    let refused = read(&[("EMERGENT_MCP_INSTALL_ENV_OF_PROJECTS", "red:A=1,PASSWORD=hunter2")]).unwrap_err();
    assert!(refused.contains("PROJECT:NAME=VALUE") && !refused.contains("hunter2"), "{refused}");
}
