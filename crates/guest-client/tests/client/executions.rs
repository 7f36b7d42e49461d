//! Commands are never run twice, whatever breaks.

use std::collections::BTreeMap;

use emergent_guest_client::{GuestCallError, Interruption};
use emergent_guest_proto::{
    ErrorCode, Execution, ExecutionState, Outcome, RunAs,
    execution::{Program, StartRequest},
    tools::{BashRequest, BashResult},
};

use crate::peer::{Asked, Peer, json, refuse};

const BASH: &str = "POST /v1/tools/bash";
const START: &str = "POST /v1/executions";

fn request() -> BashRequest {
    BashRequest { command: "make".to_owned(), execution_id: Some("one".parse().unwrap()), ..BashRequest::default() }
}

fn result() -> BashResult {
    BashResult {
        execution_id: "one".parse().unwrap(),
        stdout: "done".to_owned(),
        stderr: String::new(),
        exit_code: Some(0),
        signal: None,
        outcome: Outcome::Exited,
        reason: None,
        duration_ms: 1,
        timed_out: false,
        truncated: false,
        stdout_bytes: 4,
        stderr_bytes: 0,
        stdout_file: None,
        stderr_file: None,
    }
}

pub(crate) fn execution(state: ExecutionState) -> Execution {
    Execution {
        execution_id: "one".parse().unwrap(),
        command: "make".to_owned(),
        pid: 2,
        started_at_ms: 0,
        state,
        stdout_bytes: 0,
        stderr_bytes: 0,
        dropped_bytes: 0,
        stdout_file: "/o".parse().unwrap(),
        stderr_file: "/e".parse().unwrap(),
    }
}

#[tokio::test]
async fn a_command_whose_answer_is_lost_is_waited_for() {
    let peer = Peer::new(|asked: Asked| async move {
        match (asked.what.as_str(), asked.connection) {
            (BASH, _) => asked.cut().await,
            // The wait is cut off as well, and taken up again.
            ("GET /v1/executions/one/wait", 1 | 2) => asked.cut().await,
            ("GET /v1/executions/one/wait", _) => json(&result()),
            (other, _) => panic!("{other}"),
        }
    });
    assert_eq!(peer.guest().bash(request()).await.unwrap(), result());
    assert_eq!(peer.times(BASH), 1);
}

#[tokio::test]
async fn a_command_that_never_arrived_is_sent_again() {
    let peer = Peer::new(|asked: Asked| async move {
        match (asked.what.as_str(), asked.connection) {
            (BASH, 0) => asked.cut().await,
            (BASH, _) => json(&result()),
            _ => refuse(ErrorCode::UnknownExecution),
        }
    });
    assert_eq!(peer.guest().bash(request()).await.unwrap(), result());
    assert_eq!(peer.times(BASH), 2);
}

#[tokio::test]
async fn a_command_that_a_restart_may_have_ended_is_not_sent_again() {
    let peer = Peer::new(|asked: Asked| async move {
        match (asked.what.as_str(), asked.connection) {
            (BASH, 0) => asked.cut().await,
            _ => refuse(ErrorCode::UnknownExecution),
        }
    })
    .booting(|connection| if connection == 0 { "before" } else { "after" });
    let error = peer.guest().bash(request()).await.unwrap_err();
    let GuestCallError::Interrupted { execution_id, call_id: None, source: Interruption::Restarted } = error else {
        panic!("{error:?}")
    };
    assert_eq!(execution_id, request().execution_id);
    assert_eq!(peer.times(BASH), 1);
}

#[tokio::test]
async fn an_id_that_is_taken_is_refused_when_nothing_was_lost() {
    let peer = Peer::new(async |_| refuse(ErrorCode::ExecutionExists));
    let error = peer.guest().bash(request()).await.unwrap_err();
    assert!(matches!(&error, GuestCallError::Refused(e) if e.code == ErrorCode::ExecutionExists), "{error:?}");
}

#[tokio::test]
async fn a_start_whose_answer_is_lost_is_found_again() {
    let peer = Peer::new(|asked: Asked| async move {
        match asked.what.as_str() {
            START => asked.cut().await,
            "GET /v1/executions/one" => json(&execution(ExecutionState::Running)),
            other => panic!("{other}"),
        }
    });
    let request = StartRequest {
        execution_id: Some("one".parse().unwrap()),
        program: Program::Shell("make".to_owned()),
        workdir: None,
        env: BTreeMap::new(),
        timeout_ms: None,
        user: RunAs::Agent,
        stdin: false,
    };
    assert_eq!(peer.guest().start(request).await.unwrap(), execution(ExecutionState::Running));
    assert_eq!(peer.times(START), 1);
}
