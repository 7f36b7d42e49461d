//! Commands: how they run and how they end.

use std::{
    os::unix::fs::MetadataExt as _,
    time::{Duration, Instant},
};

use emergent_guest_proto::{
    ErrorCode, Execution, ExecutionState, OUTPUT_LIMIT, Outcome, execution::ExecutionList, tools::BashResult,
};
use http::Method;
use http_body_util::{BodyExt as _, StreamBody};
use serde_json::{Value, json};

use crate::support::{Guest, code, eventually, full, request};

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_command_runs_as_the_agent_in_the_workspace() {
    let Some(guest) = Guest::start().await else { return };
    let client = guest.client().await;
    let shown = client.sh("id -u; id -g; pwd; umask; echo $EMERGENT_EXECUTION_ID; ls -A | wc -l").await;
    let lines: Vec<_> = shown.lines().collect();
    assert_eq!(&lines[..4], ["1000", "1000", guest.workspace().to_str().unwrap(), "0022"]);
    assert_eq!(lines[4].len(), 32);
    assert_eq!(lines[5], "0");
    assert_eq!(client.sh("grep -c . /proc/self/oom_score_adj && cat /proc/self/oom_score_adj").await, "1\n500\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn the_answer_has_both_streams_the_code_and_the_variables() {
    let Some(guest) = Guest::start().await else { return };
    let client = guest.client().await;
    let body =
        json!({"command": "echo $GREETING; pwd; echo oops >&2; exit 3", "env": {"GREETING": "hello"}, "workdir": "/"});
    let result: BashResult = client.tool("bash", body).await.unwrap();
    assert_eq!((result.stdout.as_str(), result.stderr.as_str()), ("hello\n/\n", "oops\n"));
    assert_eq!(
        (result.exit_code, result.outcome, result.timed_out, result.truncated),
        (Some(3), Outcome::Exited, false, false)
    );
    assert_eq!((result.stdout_bytes, result.stderr_bytes), (8, 5));
    let killed: BashResult = client.tool("bash", json!({"command": "kill -9 $$"})).await.unwrap();
    assert_eq!((killed.exit_code, killed.signal.as_deref()), (Some(137), Some("SIGKILL")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn signals_have_their_defaults_again() {
    let Some(guest) = Guest::start().await else { return };
    let client = guest.client().await;
    // With SIGPIPE ignored `yes` would complain; with signals blocked `kill` would do nothing.
    let result: BashResult = client.tool("bash", json!({"command": "yes | head -1; kill -HUP $$"})).await.unwrap();
    assert_eq!((result.stdout.as_str(), result.stderr.as_str()), ("y\n", ""));
    assert_eq!(result.signal.as_deref(), Some("SIGHUP"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn long_output_is_cut_in_the_middle_and_the_file_has_all_of_it() {
    let Some(guest) = Guest::start().await else { return };
    let client = guest.client().await;
    let result: BashResult = client.tool("bash", json!({"command": "seq 100000"})).await.unwrap();
    let all: String = (1..=100_000).map(|number| format!("{number}\n")).collect();
    assert!(result.truncated && result.stdout.len() < OUTPUT_LIMIT + 200);
    assert!(result.stdout.starts_with("1\n2\n") && result.stdout.ends_with("\n99999\n100000\n"));
    let file = result.stdout_file.unwrap();
    assert!(
        result.stdout.contains(&format!("[{} bytes left out here; all of it is in {file}]", all.len() - OUTPUT_LIMIT))
    );
    assert_eq!(std::fs::read_to_string(file.as_path()).unwrap(), all);
    assert_eq!(client.sh(&format!("tail -1 {file}")).await, "100000\n");
    let exact: BashResult =
        client.tool("bash", json!({"command": "head -c 51200 /dev/zero | tr '\\0' x"})).await.unwrap();
    assert!(!exact.truncated && exact.stdout_file.is_none() && exact.stdout.len() == OUTPUT_LIMIT);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn output_that_is_not_text_is_shown_as_well_as_can_be() {
    let Some(guest) = Guest::start().await else { return };
    let client = guest.client().await;
    let result: BashResult = client.tool("bash", json!({"command": r"printf 'a\377b\0c'"})).await.unwrap();
    assert_eq!((result.stdout.as_str(), result.stdout_bytes), ("a\u{fffd}b\0c", 5));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_server_left_in_the_background_holds_nothing_up_and_can_be_cancelled() {
    let Some(guest) = Guest::start().await else { return };
    let client = guest.client().await;
    let started = Instant::now();
    let body = json!({"execution_id": "server", "command": "sleep 4711.1 & echo started"});
    let result: BashResult = client.tool("bash", body).await.unwrap();
    assert_eq!((result.stdout.as_str(), result.exit_code), ("started\n", Some(0)));
    assert!(started.elapsed() < Duration::from_secs(5));
    let alive = || std::future::ready((guest.processes("sleep 4711.1").len() == 1).then_some(()));
    eventually("the server runs", alive).await;
    let cancelled: Execution = client.post("/v1/executions/server/cancel", &json!({})).await.unwrap();
    let ExecutionState::Ended { outcome, exit_code, .. } = cancelled.state else { panic!() };
    assert_eq!((outcome, exit_code), (Outcome::Exited, Some(0)));
    assert!(guest.processes("sleep 4711.1").is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn cancel_ends_the_whole_tree_also_what_left_the_session() {
    let Some(guest) = Guest::start().await else { return };
    let client = guest.client().await;
    client.configure(json!({"environment": {}, "allow_root": true})).await;
    for user in ["agent", "root"] {
        let seconds = if user == "agent" { "4711.2" } else { "4711.3" };
        let program =
            format!("setsid sh -c 'setsid sleep {seconds} & exec sleep {seconds}' & (sleep {seconds} &) ; wait");
        client.start(json!({"execution_id": user, "program": program, "user": user})).await;
        let line = format!("sleep {seconds}");
        let all = || {
            std::future::ready(
                (guest
                    .processes(&line)
                    .iter()
                    .filter(|pid| std::fs::read(format!("/proc/{pid}/comm")).is_ok_and(|name| name == b"sleep\n"))
                    .count()
                    == 3)
                    .then_some(()),
            )
        };
        eventually("all three run", all).await;
        let cancelled: Execution = client.post(&format!("/v1/executions/{user}/cancel"), &json!({})).await.unwrap();
        assert!(matches!(cancelled.state, ExecutionState::Ended { outcome: Outcome::Cancelled, .. }), "{cancelled:?}");
        assert_eq!(guest.processes(&line), [0; 0], "{user}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn the_time_limit_ends_politely_first_and_then_for_good() {
    let Some(guest) = Guest::start().await else { return };
    let client = guest.client().await;
    let polite = json!({"command": "echo begun; trap 'echo bye; exit 7' TERM; sleep 4711.4", "timeout_ms": 300});
    let result: BashResult = client.tool("bash", polite).await.unwrap();
    assert_eq!((result.stdout.as_str(), result.exit_code, result.timed_out), ("begun\nbye\n", Some(7), true));
    assert_eq!(result.outcome, Outcome::TimedOut);
    let started = Instant::now();
    let deaf = json!({"command": "trap '' TERM; echo begun; while :; do sleep 0.1; done", "timeout_ms": 300});
    let result: BashResult = client.tool("bash", deaf).await.unwrap();
    assert_eq!((result.stdout.as_str(), result.exit_code, result.timed_out), ("begun\n", Some(137), true));
    let taken = started.elapsed();
    assert!(Duration::from_secs(5) < taken && taken < Duration::from_secs(9), "{taken:?}");
    assert!(guest.processes("sleep 4711.4").is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_id_names_one_execution_and_its_answer_can_be_had_again() {
    let Some(guest) = Guest::start().await else { return };
    let client = guest.client().await;
    let body = json!({"execution_id": "once", "command": "echo x >> once; cat once"});
    let first: BashResult = client.tool("bash", body.clone()).await.unwrap();
    assert_eq!(code(client.tool::<Value>("bash", body).await), ErrorCode::ExecutionExists);
    assert_eq!(client.wait("once").await, first);
    assert_eq!(client.sh("cat once").await, "x\n");
    assert_eq!(code(client.get::<Value>("/v1/executions/never/wait").await), ErrorCode::UnknownExecution);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_execution_goes_on_when_its_caller_vanishes() {
    let Some(guest) = Guest::start().await else { return };
    let client = guest.client().await;
    let body = json!({"execution_id": "alone", "command": "sleep 0.5; echo done > witness"}).to_string();
    let call = request(Method::POST, "/v1/tools/bash", full(body));
    let call = tokio::spawn(async move { client.send(call).await });
    let other = guest.client().await;
    eventually("it runs", || async { other.get::<Execution>("/v1/executions/alone").await.ok() }).await;
    // With the only handle of its connection gone, that connection breaks.
    call.abort();
    assert_eq!(other.wait("alone").await.exit_code, Some(0));
    assert_eq!(other.sh("cat witness").await, "done\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_program_without_a_shell_is_found_in_the_path() {
    let Some(guest) = Guest::start().await else { return };
    let client = guest.client().await;
    let execution = client.start(json!({"program": ["printf", "%s|", "a b", "$HOME"]})).await;
    assert_eq!(client.wait(execution.execution_id.as_str()).await.stdout, "a b|$HOME|");
    assert_eq!(execution.command, "printf %s| a b $HOME");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_cannot_run_says_why_and_leaves_nothing() {
    let Some(guest) = Guest::start().await else { return };
    let client = guest.client().await;
    guest.put("not-executable", "");
    for (body, expected, field) in [
        (json!({"program": "true", "workdir": "nowhere"}), ErrorCode::NotFound, "workdir"),
        (json!({"program": ["no-such-program"]}), ErrorCode::MissingProgram, "program"),
        (json!({"program": ["./not-executable"]}), ErrorCode::PermissionDenied, "program"),
        (json!({"program": "true", "workdir": "/root"}), ErrorCode::PermissionDenied, "workdir"),
        (json!({"program": "true", "user": "root"}), ErrorCode::PermissionDenied, "user"),
        (json!({"program": []}), ErrorCode::InvalidRequest, "program"),
        (json!({"program": "true", "env": {"A": "x".repeat(2_000_000)}}), ErrorCode::InvalidRequest, "env.A"),
    ] {
        let error = client.post::<Value>("/v1/executions", &body).await.unwrap_err();
        assert_eq!((error.code, error.field.as_deref()), (expected, Some(field)), "{error:?}");
    }
    let list: ExecutionList = client.get("/v1/executions").await.unwrap();
    assert!(list.executions.is_empty());
    assert_eq!(std::fs::read_dir(guest.state().join("output")).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn root_is_for_workspaces_that_allow_it() {
    let Some(guest) = Guest::start().await else { return };
    let client = guest.client().await;
    client.configure(json!({"environment": {}, "allow_root": true})).await;
    let result: BashResult =
        client.tool("bash", json!({"command": "id -u; echo $USER", "user": "root"})).await.unwrap();
    assert_eq!(result.stdout, "0\nroot\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn standard_input_can_be_written_and_closed() {
    let Some(guest) = Guest::start().await else { return };
    let client = guest.client().await;
    client.start(json!({"execution_id": "cat", "program": "cat; echo end", "stdin": true})).await;
    let big = "x".repeat(1 << 20);
    client.call::<Value>(Method::POST, "/v1/executions/cat/stdin", "hello\n").await.unwrap();
    client.call::<Value>(Method::POST, "/v1/executions/cat/stdin?close=true", big.clone()).await.unwrap();
    let collected = client.collect("cat", "stdout=0&follow=true").await;
    assert_eq!(collected.stdout, format!("hello\n{big}end\n").into_bytes());
    for id in ["cat", "no-stdin"] {
        if id == "no-stdin" {
            client.start(json!({"execution_id": id, "program": "sleep 0.2"})).await;
        }
        let error = client.call::<Value>(Method::POST, &format!("/v1/executions/{id}/stdin"), "x").await;
        assert_eq!(code(error), ErrorCode::NotRunning);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_process_that_never_reads_does_not_hold_its_writer_for_ever() {
    let Some(guest) = Guest::start().await else { return };
    let client = guest.client().await;
    client.start(json!({"execution_id": "deaf", "program": "sleep 0.5", "stdin": true})).await;
    let written = client.call::<Value>(Method::POST, "/v1/executions/deaf/stdin", "x".repeat(1 << 20)).await;
    assert_eq!(code(written), ErrorCode::NotRunning);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_writer_that_sends_nothing_holds_up_neither_the_end_nor_its_record() {
    let Some(mut guest) = Guest::start().await else { return };
    let client = guest.client().await;
    client.start(json!({"execution_id": "waits", "program": "read line; exit 7", "stdin": true})).await;
    let uploads = (0..2).map(|_| {
        let silence = StreamBody::new(futures::stream::pending());
        client.send(request(Method::POST, "/v1/executions/waits/stdin", silence.boxed_unsync()))
    });
    let ended = async {
        client.post::<Value>("/v1/executions/waits/signal", &json!({"signal": "KILL"})).await.unwrap();
        client.wait("waits").await
    };
    let (answers, ended) = futures::join!(futures::future::join_all(uploads), ended);
    assert_eq!(ended.exit_code, Some(137));
    assert!(answers.iter().all(|answer| answer.status() == ErrorCode::NotRunning.status()), "{answers:?}");
    let journal = guest.state().join("executions.jsonl");
    let noted = || std::future::ready(std::fs::read_to_string(&journal).unwrap().contains("SIGKILL").then_some(()));
    eventually("the journal knows its end", noted).await;
    guest.restart_after_kill().await;
    assert_eq!(guest.client().await.wait("waits").await, ended);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn signals_reach_the_process_group() {
    let Some(guest) = Guest::start().await else { return };
    let client = guest.client().await;
    let program = "trap 'echo caught; exit 5' INT; echo ready; while :; do sleep 0.02; done";
    let execution = client.start(json!({"execution_id": "trap", "program": program})).await;
    let ready =
        || std::future::ready(std::fs::metadata(execution.stdout_file.as_path()).ok().filter(|file| file.len() > 0));
    eventually("it is ready", ready).await;
    client.post::<Value>("/v1/executions/trap/signal", &json!({"signal": "int"})).await.unwrap();
    let result = client.wait("trap").await;
    assert_eq!((result.stdout.as_str(), result.exit_code), ("ready\ncaught\n", Some(5)));
    let late = client.post::<Value>("/v1/executions/trap/signal", &json!({"signal": "SIGTERM"})).await;
    assert_eq!(code(late), ErrorCode::NotRunning);
    let unknown = client.post::<Value>("/v1/executions/trap/signal", &json!({"signal": "SIGNOPE"})).await.unwrap_err();
    assert_eq!(unknown.field.as_deref(), Some("signal"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_restart_keeps_what_has_ended_and_calls_the_rest_lost() {
    let Some(mut guest) = Guest::start().await else { return };
    let client = guest.client().await;
    let body = json!({"execution_id": "ended", "command": "echo kept; echo too >&2; exit 4"});
    let before: BashResult = client.tool("bash", body).await.unwrap();
    client.start(json!({"execution_id": "unfinished", "program": "echo partial; exec sleep 4711.5"})).await;
    let partial = guest.state().join("output/unfinished.stdout");
    let written = || std::future::ready(std::fs::metadata(&partial).ok().filter(|file| file.len() > 0));
    eventually("it has written", written).await;
    let journal = guest.state().join("executions.jsonl");
    let noted = || std::future::ready(std::fs::read_to_string(&journal).unwrap().contains("unfinished").then_some(()));
    eventually("the journal knows it", noted).await;
    guest.restart_after_kill().await;
    let client = guest.client().await;
    assert_eq!(client.wait("ended").await, before);
    let lost = client.wait("unfinished").await;
    assert_eq!((lost.outcome, lost.exit_code, lost.stdout.as_str()), (Outcome::Lost, None, "partial\n"));
    assert!(lost.reason.is_some());
    let list: ExecutionList = client.get("/v1/executions").await.unwrap();
    let ids: Vec<_> = list.executions.iter().map(|execution| execution.execution_id.as_str()).collect();
    assert_eq!(ids, ["unfinished", "ended"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn lost_executions_have_the_reason_that_the_server_knows_and_keep_it() {
    let Some(mut guest) = Guest::start().await else { return };
    let client = guest.client().await;
    let ended: BashResult = client.tool("bash", json!({"execution_id": "ended", "command": "exit 4"})).await.unwrap();
    client.start(json!({"execution_id": "unfinished", "program": "exec sleep 4711.7"})).await;
    let journal = guest.state().join("executions.jsonl");
    let noted = |word| std::future::ready(std::fs::read_to_string(&journal).unwrap().contains(word).then_some(()));
    eventually("the journal knows it", || noted("unfinished")).await;
    guest.restart_after_kill().await;
    let reason = "the workspace ran out of memory and was ended";
    guest.client().await.post::<Value>("/v1/last-end", &json!({"reason": reason})).await.unwrap();
    eventually("the journal knows the reason", || noted(reason)).await;
    for _ in 0..2 {
        let client = guest.client().await;
        assert_eq!(client.wait("unfinished").await.reason.as_deref(), Some(reason));
        assert_eq!(client.wait("ended").await, ended);
        guest.restart_after_kill().await;
    }
    // That another guest ended for another reason is nothing to those that were lost before.
    let client = guest.client().await;
    client.post::<Value>("/v1/last-end", &json!({"reason": "something else"})).await.unwrap();
    assert_eq!(client.wait("unfinished").await.reason.as_deref(), Some(reason));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn only_so_many_ended_executions_are_remembered() {
    let Some(guest) = Guest::start().await else { return };
    let client = guest.client().await;
    client.start(json!({"execution_id": "first", "program": ["true"]})).await;
    client.wait("first").await;
    let calls = (0..1_000).map(|_| client.tool::<BashResult>("bash", json!({"command": ":"})));
    for result in futures::future::join_all(calls).await {
        assert_eq!(result.unwrap().exit_code, Some(0));
    }
    eventually("the first is forgotten", || async {
        let found = client.get::<Value>("/v1/executions/first").await;
        found.is_err_and(|error| error.code == ErrorCode::UnknownExecution).then_some(())
    })
    .await;
    eventually("its files are gone", || {
        std::future::ready((!guest.state().join("output/first.stdout").exists()).then_some(()))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_id_that_was_forgotten_can_be_used_again_and_keeps_its_new_output() {
    let Some(guest) = Guest::start().await else { return };
    let client = guest.client().await;
    // So much takes a while to be removed.
    let body = json!({"execution_id": "again", "command": "head -c 400M /dev/zero"});
    client.tool::<BashResult>("bash", body).await.unwrap();
    let old = std::fs::File::open(guest.state().join("output/again.stderr")).unwrap();
    let calls = (0..1_000).map(|_| client.tool::<BashResult>("bash", json!({"command": ":"})));
    futures::future::join_all(calls).await;
    let body = json!({"execution_id": "again", "command": "echo out; echo err >&2"});
    let result = loop {
        match client.tool::<BashResult>("bash", body.clone()).await {
            Err(error) if error.code == ErrorCode::ExecutionExists => {}
            answer => break answer.unwrap(),
        }
    };
    assert_eq!((result.stdout.as_str(), result.stderr.as_str()), ("out\n", "err\n"));
    let removed = || std::future::ready((old.metadata().unwrap().nlink() == 0).then_some(()));
    eventually("all that was old is removed", removed).await;
    let collected = client.collect("again", "stdout=0&stderr=0&follow=true").await;
    assert_eq!((collected.stdout.as_slice(), collected.stderr.as_slice()), (&b"out\n"[..], &b"err\n"[..]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn no_command_gains_privileges_and_roots_commands_are_not_the_agents_to_read() {
    let Some(guest) = Guest::start().await else { return };
    let client = guest.client().await;
    client.configure(json!({"environment": {}, "allow_root": true})).await;
    for user in ["agent", "root"] {
        let body = json!({"command": "grep NoNewPrivs /proc/self/status; echo done-by-$USER", "user": user, "execution_id": user});
        let result: BashResult = client.tool("bash", body).await.unwrap();
        assert!(result.stdout.starts_with("NoNewPrivs:\t1\n"), "{result:?}");
    }
    let state = guest.state();
    let read = |name: &str| json!({"file_path": state.join(name).to_str().unwrap()});
    client.tool::<Value>("read", read("output/agent.stdout")).await.unwrap();
    for name in ["output/root.stdout", "output/root.stderr", "executions.jsonl"] {
        assert_eq!(code(client.tool::<Value>("read", read(name)).await), ErrorCode::PermissionDenied, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn variables_work_up_to_the_kernels_limit_which_a_refusal_names() {
    let Some(guest) = Guest::start().await else { return };
    let client = guest.client().await;
    let with = |count: usize| {
        let value = "x".repeat(100_000);
        let variables: std::collections::BTreeMap<_, _> = (0..count).map(|n| (format!("V{n}"), &value)).collect();
        client.tool::<BashResult>("bash", json!({"command": "env | wc -c", "env": variables}))
    };
    let stack = rustix::process::getrlimit(rustix::process::Resource::Stack).current.unwrap_or(u64::MAX);
    let limit = (stack / 4).min(6 << 20);
    let fits = usize::try_from(limit / 100_000).unwrap() - 1;
    let result = with(fits).await.unwrap();
    assert!(result.stdout.trim().parse::<usize>().unwrap() > fits * 100_000, "{result:?}");
    let refused = with(fits + 2).await.unwrap_err();
    assert_eq!((refused.code, refused.code.status()), (ErrorCode::ArgumentsTooLong, 422));
    assert!(refused.message.contains(&limit.to_string()), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_progress_bar_is_shown_as_it_ends_and_kept_as_it_came() {
    let Some(guest) = Guest::start().await else { return };
    let client = guest.client().await;
    let command = r"for i in $(seq 0 100); do printf '\r%3d%%' $i; done; printf '\ndone\r\n'";
    let result: BashResult = client.tool("bash", json!({"command": command})).await.unwrap();
    assert_eq!((result.stdout.as_str(), result.truncated), ("100%\ndone\r\n", false));
    let kept = std::fs::read_to_string(result.stdout_file.unwrap().as_path()).unwrap();
    assert_eq!((kept.matches('\r').count(), kept.len() as u64), (102, result.stdout_bytes));
}
