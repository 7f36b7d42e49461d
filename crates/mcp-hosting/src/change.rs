//! The reach of a change of a server: its settings, its processes or its whole sandbox. Pure.

use emergent_store::{McpChangeReach, McpServerSpec};

/// Returns the part of a server that a change makes or starts anew; a new `environment` needs new processes.
pub(crate) fn reach(before: &McpServerSpec, after: &McpServerSpec, environment: bool) -> McpChangeReach {
    let settings = |spec: &McpServerSpec| McpServerSpec {
        restart_policy: before.restart_policy,
        call_timeout_ms: before.call_timeout_ms,
        ..spec.clone()
    };
    let processes = |spec: &McpServerSpec| McpServerSpec {
        cmd: before.cmd.clone(),
        workdir: before.workdir.clone(),
        stdio_bridge: before.stdio_bridge,
        port: before.port,
        path: before.path.clone(),
        shared: before.shared,
        ..settings(spec)
    };
    if processes(after) != *before {
        McpChangeReach::Sandbox
    } else if environment || settings(after) != *before {
        McpChangeReach::Processes
    } else {
        McpChangeReach::Settings
    }
}

#[cfg(test)]
mod tests {
    use emergent_store::RestartPolicy;

    use super::*;

    #[test]
    fn only_what_has_to_is_made_or_started_anew() {
        let before: McpServerSpec = serde_json::from_value(serde_json::json!({
            "image": "image", "stdio_bridge": true, "restart_policy": "always", "cpu": 1.0, "memory_bytes": 1,
            "disk_bytes": 1, "pids": 1, "network": "none", "call_timeout_ms": 1
        }))
        .unwrap();
        let reach_of = |change: fn(&mut McpServerSpec)| {
            let mut after = before.clone();
            change(&mut after);
            reach(&before, &after, false)
        };
        assert_eq!(reach_of(|_| {}), McpChangeReach::Settings);
        assert_eq!(reach_of(|spec| spec.call_timeout_ms += 1), McpChangeReach::Settings);
        assert_eq!(reach_of(|spec| spec.restart_policy = RestartPolicy::Never), McpChangeReach::Settings);
        assert_eq!(reach_of(|spec| spec.cmd = Some(vec!["other".to_owned()])), McpChangeReach::Processes);
        assert_eq!(reach_of(|spec| spec.shared = true), McpChangeReach::Processes);
        assert_eq!(reach(&before, &before, true), McpChangeReach::Processes);
        assert_eq!(reach_of(|spec| spec.memory_bytes += 1), McpChangeReach::Sandbox);
        assert_eq!(reach_of(|spec| spec.run_as_root = true), McpChangeReach::Sandbox);
        assert_eq!(reach_of(|spec| drop(spec.volumes.insert("a".into(), "/a".into()))), McpChangeReach::Sandbox);
    }
}
