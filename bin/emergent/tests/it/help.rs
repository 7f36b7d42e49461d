//! The help of the program and its commands.

use crate::harness::{assert_snapshot, emergent, run};

#[test]
fn help_teaches() {
    let commands: [&[&str]; 34] = [
        &[],
        &["serve"],
        &["doctor"],
        &["env"],
        &["firecracker"],
        &["firecracker-manager"],
        &["firecracker", "setup"],
        &["firecracker", "net-helper"],
        &["openapi"],
        &["token"],
        &["token", "create"],
        &["project"],
        &["project", "quota"],
        &["workspace"],
        &["workspace", "create"],
        &["workspace", "ls"],
        &["workspace", "show"],
        &["workspace", "exec"],
        &["workspace", "cp"],
        &["workspace", "files"],
        &["workspace", "files", "rm"],
        &["workspace", "logs"],
        &["workspace", "audit"],
        &["workspace", "set"],
        &["workspace", "attach"],
        &["workspace", "detach"],
        &["workspace", "sessions"],
        &["workspace", "stop"],
        &["workspace", "pause"],
        &["workspace", "resume"],
        &["workspace", "rm"],
        &["snapshot"],
        &["snapshot", "rm"],
        &["mcp", "add"],
    ];
    for command in commands {
        let ended = run(emergent(command).arg("--help"));
        assert_eq!((ended.status, ended.stderr.as_str()), (Some(0), ""), "{command:?}");
        let name = if command.is_empty() { "help".to_owned() } else { format!("help-{}", command.join("-")) };
        assert_snapshot(&format!("{name}.txt"), &ended.stdout);
    }
}

#[test]
fn wrong_usage_ends_with_2_and_says_what_would_be_right() {
    for arguments in
        [&["workspace", "crate"][..], &["workspace", "exec"], &["token", "create", "--name", "a"], &["frobnicate"]]
    {
        let ended = run(&mut emergent(arguments));
        assert_eq!((ended.status, ended.stdout.as_str()), (Some(2), ""), "{arguments:?}");
        assert!(ended.stderr.contains("--help") || ended.stderr.contains("similar"), "{}", ended.stderr);
    }
}

#[test]
fn habits_of_other_tools_are_answered_with_the_command_that_is_meant() {
    for (arguments, tip) in [
        (&["ps"][..], "`emergent workspace ls`"),
        (&["workspace", "top"], "`emergent workspace exec NAME -- ps aux`"),
        (&["stats"], "/usage"),
        (&["run", "first"], "`emergent workspace create --name NAME`"),
        (&["workspace", "shell", "first"], "`emergent workspace exec -i NAME -- bash`"),
        (&["exec", "first", "--", "ls"], "`emergent workspace exec`"),
        (&["workspace", "create", "first"], "`emergent workspace create --name first`"),
        (&["workspace", "rm", "-f", "first"], "leave -f out"),
        (&["workspace", "files", "rm", "-rf", "first", "a"], "leave -f out"),
    ] {
        let ended = run(&mut emergent(arguments));
        assert_eq!((ended.status, ended.stdout.as_str()), (Some(2), ""), "{arguments:?}");
        assert!(ended.stderr.contains("tip: ") && ended.stderr.contains(tip), "{arguments:?}: {}", ended.stderr);
        assert!(!ended.stderr.contains("similar"), "{arguments:?}: {}", ended.stderr);
    }
    let elsewhere = run(&mut emergent(&["mcp", "run"]));
    assert!(!elsewhere.stderr.contains("workspace"), "{}", elsewhere.stderr);
}

#[test]
fn openapi_prints_the_committed_document() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../openapi/emergent.json");
    assert!(run(&mut emergent(&["openapi"])).stdout == std::fs::read_to_string(path).unwrap());
}
