//! A server without workspaces, and the commands that need no more.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    os::unix::fs::PermissionsExt as _,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::harness::{Server, emergent, run};

#[test]
fn the_first_token_is_shown_once_and_kept_for_its_owner_alone() {
    let server = Server::start();
    let token = std::fs::read_to_string(server.token_file()).unwrap();
    assert!(token.starts_with("emt_") && token.trim().len() == 47, "{token:?}");
    assert_eq!(std::fs::metadata(server.token_file()).unwrap().permissions().mode() & 0o777, 0o600);
    let (_, directory) = server.stop();

    let again = Server::start_in(directory);
    assert_eq!(std::fs::read_to_string(again.token_file()).unwrap(), token);
    assert_eq!(again.client(&["token", "ls"]).status, Some(0));
    let (log, _) = again.stop();
    assert!(!log.iter().any(|line| line.contains("emt_")), "{log:?}");
}

#[test]
fn tokens_are_made_used_rotated_and_revoked() {
    let server = Server::start();
    let made = server.client(&["token", "create", "--name", "ci", "--scope", "admin:read"]);
    assert_eq!(made.status, Some(0), "{}", made.stderr);
    let secret = made.stdout.trim();
    assert_eq!(server.client(&["token", "ls", "--token", secret]).status, Some(0));

    let listed: Value = serde_json::from_str(&server.client(&["token", "ls", "--json"]).stdout).unwrap();
    let id = listed["items"][0]["id"].as_str().unwrap();
    assert_eq!(listed["items"][0]["name"], "ci");
    let unknown = server.client(&["token", "rotate", "no-such-name"]);
    assert!(unknown.stderr.contains("emergent token ls"), "{}", unknown.stderr);
    let rotated = server.client(&["token", "rotate", "ci"]);
    assert_eq!(server.client(&["token", "ls", "--token", secret]).status, Some(1));
    assert_eq!(server.client(&["token", "ls", "--token", rotated.stdout.trim()]).status, Some(0));

    assert_eq!(server.client(&["token", "revoke", id]).stdout, format!("revoked {id}\n"));
    let refused = server.client(&["token", "ls", "--token", rotated.stdout.trim()]);
    assert_eq!((refused.status, refused.stdout.as_str()), (Some(1), ""));
    assert!(
        refused.stderr.starts_with("error: A valid token is needed\n  the token is not known"),
        "{}",
        refused.stderr
    );
}

#[test]
fn a_token_for_another_project_is_made_by_name() {
    let server = Server::start();
    let create = ["token", "create", "--name", "ci", "--scope", "admin:write", "--scope", "admin:read"];
    let made = server.client(&[&create[..], &["--project", "team"]].concat());
    assert_eq!(made.status, Some(0), "{}", made.stderr);
    let token = ["--token", made.stdout.trim()];
    let listed = server.client(&[&["token", "ls", "--json"][..], &token].concat());
    let listed: Value = serde_json::from_str(&listed.stdout).unwrap();
    assert_eq!(listed["items"].as_array().unwrap().len(), 1);
    assert_eq!(listed["items"][0]["project"], "team");
    // The administrator who made it sees it, and ends it.
    let seen = server.client(&["token", "ls", "--json", "--project", "team"]);
    let seen: Value = serde_json::from_str(&seen.stdout).unwrap();
    assert_eq!((seen["items"].as_array().unwrap().len(), &seen["items"][0]["project"]), (1, &Value::from("team")));
    let refused = server.client(&[&create[..], &["--project", "default"], &token].concat());
    assert_eq!((refused.status, refused.stdout.as_str()), (Some(1), ""));
    assert!(refused.stderr.contains("only an administrator's token"), "{}", refused.stderr);
    assert_eq!(server.client(&["token", "revoke", "ci"]).status, Some(0));
    assert_eq!(server.client(&[&["token", "ls"][..], &token].concat()).status, Some(1));
}

#[test]
fn a_problem_is_shown_with_what_to_do() {
    let server = Server::start();
    let refused = server.client(&["workspace", "ls"]);
    assert_eq!((refused.status, refused.stdout.as_str()), (Some(1), ""));
    let expected = "error: Workspaces are switched off\n  workspaces are switched off on this server; set \
                    ENABLE_AGENT_WORKSPACES=true and start it again\n";
    assert_eq!(refused.stderr, expected);
}

#[test]
fn a_client_without_a_token_says_where_it_has_looked_and_how_to_name_one() {
    let server = Server::start();
    let elsewhere = tempfile::tempdir().unwrap();
    let address = format!("http://{}", server.address());
    for command in [&["token", "ls"][..], &["env"]] {
        let mut client = emergent(command);
        client.env("EMERGENT_SERVER", &address).env("EMERGENT_DATA_DIR", elsewhere.path());
        let refused = run(&mut client);
        assert_eq!((refused.status, refused.stdout.as_str()), (Some(1), ""));
        let looked = elsewhere.path().join("bootstrap-token");
        for told in [&address, looked.to_str().unwrap(), "EMERGENT_DATA_DIR", "EMERGENT_TOKEN", "--token"] {
            assert!(refused.stderr.contains(told), "{told}: {}", refused.stderr);
        }
    }
}

#[test]
fn https_to_a_server_without_a_certificate_is_told_as_that() {
    let server = Server::start();
    let address = format!("https://{}", server.address());
    let refused = server.client(&["token", "ls", "--server", &address]);
    assert_eq!((refused.status, refused.stdout.as_str()), (Some(1), ""));
    assert!(refused.stderr.contains("plain HTTP") && refused.stderr.contains("http://"), "{}", refused.stderr);
}

#[test]
fn what_exec_itself_fails_at_is_told_apart_from_its_command() {
    let server = Server::start();
    assert_eq!(server.client(&["workspace", "exec", "try", "--", "true"]).status, Some(125));
    let nothing = server.client(&["workspace", "exec", "try"]);
    assert_eq!((nothing.status, nothing.stdout.as_str()), (Some(2), ""));
    assert!(nothing.stderr.contains("emergent workspace exec try -- ls -la"), "{}", nothing.stderr);
    let terminal = server.client(&["workspace", "exec", "-it", "try", "--", "bash"]);
    assert_eq!((terminal.status, terminal.stdout.as_str()), (Some(2), ""));
    assert!(terminal.stderr.contains("emergent workspace exec -i try -- bash"), "{}", terminal.stderr);
    let unreachable = run(&mut emergent(&["workspace", "exec", "--server", "http://127.0.0.1:1", "try", "--", "true"]));
    assert_eq!(unreachable.status, Some(125));
    assert!(unreachable.stderr.contains("could not be reached"), "{}", unreachable.stderr);
}

#[test]
fn doctor_looks_at_everything_and_its_exit_code_agrees() {
    let ended = run(&mut emergent(&["doctor", "--json"]));
    let report: Value = serde_json::from_str(&ended.stdout).unwrap();
    let names: Vec<_> =
        report["checks"].as_array().unwrap().iter().map(|check| check["name"].as_str().unwrap()).collect();
    for name in ["settings", "docker", "guest binary", "address", "data directory", "disk space", "kvm"] {
        assert!(names.contains(&name), "{names:?}");
    }
    assert_eq!(ended.status, Some(if report["ok"] == true { 0 } else { 1 }));
}

#[test]
fn an_mcp_server_needs_something_to_run() {
    let server = Server::start();
    let nothing = server.client(&["mcp", "add", "clock"]);
    assert_eq!((nothing.status, nothing.stdout.as_str()), (Some(1), ""));
    assert!(nothing.stderr.contains("emergent mcp add clock --pypi mcp-server-time"), "{}", nothing.stderr);
}

#[test]
fn a_project_with_uploads_under_way_on_every_connection_keeps_nobody_out() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start_set(directory, &[], &[("EMERGENT_MAX_CONNECTIONS", "32")]);
    let create = ["token", "create", "--name", "t", "--scope", "admin:write", "--project", "greedy"];
    let greedy = server.client(&create).stdout.trim().to_owned();
    let head = format!(
        "POST /api/v1/tokens HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {greedy}\r\n\
         content-type: application/json\r\ncontent-length: 1000\r\n\r\n{{"
    );
    let uploads: Vec<_> = (0..32)
        .map(|_| {
            let mut stream = TcpStream::connect(server.address()).unwrap();
            stream.write_all(head.as_bytes()).unwrap();
            stream
        })
        .collect();
    let refused = |mut stream: &TcpStream| {
        let mut answer = [0; 12];
        stream.set_read_timeout(Some(Duration::from_millis(10))).unwrap();
        stream.read(&mut answer).is_ok() && &answer == b"HTTP/1.1 429"
    };
    let deadline = Instant::now() + Duration::from_secs(30);
    let mut told = 0;
    // A quarter of the connections may be in use by one project; the server closes no upload for another.
    while told < 24 && Instant::now() < deadline {
        told += uploads.iter().filter(|stream| refused(stream)).count();
    }
    assert_eq!(told, 24);
    for _ in 0..24 {
        let victim = server.client(&["token", "ls"]);
        assert_eq!(victim.status, Some(0), "{}", victim.stderr);
    }
}
