//! Children, through the server's own client: no byte is lost or doubled when clients come and go.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use emergent_guest_client::{ChildOutput, Guest as GuestClient, GuestCallError, Open};
use emergent_guest_proto::{ChildId, ErrorCode, RunAs, child::SpawnChild};
use emergent_provider::{ByteStream, ChannelError};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, UnixStream},
    task::AbortHandle,
};

use crate::support::{Guest, eventually};

/// Connections to a guest that can be cut.
#[derive(Clone, Default)]
struct Wires {
    socket: PathBuf,
    open: Arc<Mutex<Vec<AbortHandle>>>,
}

#[async_trait]
impl Open for Wires {
    async fn open(&self) -> Result<ByteStream, ChannelError> {
        let mut outer = UnixStream::connect(&self.socket).await.map_err(|_| ChannelError::NotRunning)?;
        let (near, mut far) = tokio::io::duplex(64 * 1024);
        let copying = tokio::spawn(async move { tokio::io::copy_bidirectional(&mut outer, &mut far).await });
        self.open.lock().unwrap().push(copying.abort_handle());
        Ok(Box::new(near))
    }
}

impl Wires {
    fn cut(&self) {
        self.open.lock().unwrap().drain(..).for_each(|wire| wire.abort());
    }
}

fn client(guest: &Guest) -> (GuestClient, Wires) {
    let wires = Wires { socket: guest.socket(), ..Wires::default() };
    (GuestClient::new(Arc::new(wires.clone()), None), wires)
}

fn request(id: &str, script: &str) -> SpawnChild {
    SpawnChild {
        child_id: ChildId::new(id).unwrap(),
        argv: ["sh", "-c", script].map(str::to_owned).to_vec(),
        workdir: None,
        env: [("GREETING".to_owned(), "hello".to_owned())].into(),
        user: RunAs::Agent,
        note: "first".to_owned(),
        stdout_to_stderr: false,
        buffer: 64 * 1024,
    }
}

async fn read_until(output: &mut ChildOutput, end: &str) -> String {
    let mut text = Vec::new();
    while !text.ends_with(end.as_bytes()) {
        text.extend_from_slice(&output.next().await.unwrap().expect("output has not ended"));
        output.acknowledge(output.position());
    }
    String::from_utf8(text).unwrap()
}

#[tokio::test]
async fn lines_go_in_and_out() {
    let Some(guest) = Guest::start().await else { return };
    let (client, _wires) = client(&guest);
    let id = client.spawn_child(&request("echo", "echo $GREETING; exec cat")).await.unwrap().child_id;
    let mut output = client.child_output(id.clone(), 0);
    let mut input = client.child_input(id.clone());
    assert_eq!(read_until(&mut output, "\n").await, "hello\n");
    for number in 0..200 {
        let line = format!("{number}\n");
        input.write(line.clone().into()).await.unwrap();
        assert_eq!(read_until(&mut output, "\n").await, line);
    }
    client.close_child_input(&id).await.unwrap();
    assert_eq!(output.next().await.unwrap(), None);
    assert_eq!(client.wait_for_child(&id).await.unwrap().exit.unwrap().code, Some(0));
}

#[tokio::test]
async fn cut_connections_lose_and_double_nothing() {
    let Some(guest) = Guest::start().await else { return };
    let (client, wires) = client(&guest);
    let id = client.spawn_child(&request("cat", "exec cat")).await.unwrap().child_id;
    let (mut output, mut input) = (client.child_output(id.clone(), 0), client.child_input(id));
    let lines: Vec<String> = (0..3_000).map(|number| format!("{number} {}\n", "x".repeat(number % 977))).collect();
    let sent = lines.clone();
    let writing = tokio::spawn(async move {
        for line in sent {
            input.write(Bytes::from(line)).await.unwrap();
        }
        input
    });
    let cutting = tokio::spawn(async move {
        for _ in 0..8 {
            tokio::time::sleep(Duration::from_millis(15)).await;
            wires.cut();
        }
    });
    let last = lines.last().unwrap();
    assert_eq!(read_until(&mut output, last).await, lines.concat());
    cutting.await.unwrap();
    drop(writing.await.unwrap());
}

#[tokio::test]
async fn another_client_goes_on_where_the_last_one_left() {
    let Some(guest) = Guest::start().await else { return };
    let (first, wires) = client(&guest);
    let script = "n=0; while read line; do n=$((n+1)); echo $n $line; done";
    let id = first.spawn_child(&request("counter", script)).await.unwrap().child_id;
    let (mut output, mut input) = (first.child_output(id.clone(), 0), first.child_input(id.clone()));
    input.write("a\n".into()).await.unwrap();
    assert_eq!(read_until(&mut output, "\n").await, "1 a\n");
    input.write("b\n".into()).await.unwrap();
    // Read and not acknowledged, as by a server that dies while it works on it; the next line is cut in the middle.
    assert_eq!(output.next().await.unwrap().unwrap(), "2 b\n");
    input.write("half of a li".into()).await.unwrap();
    eventually("the half line is on its way", || async { first.set_child_note(&id, "second".into()).await.ok() }).await;
    drop((first, input, output));
    wires.cut();

    let (second, _wires) = client(&guest);
    let found = second.children().await.unwrap().children.remove(0);
    assert_eq!((found.child_id.as_str(), found.note.as_str(), found.exit), ("counter", "second", None));
    assert_eq!(found.stdout_acknowledged, 4);
    let mut output = second.child_output(id.clone(), found.stdout_acknowledged);
    let mut input = second.child_input(id);
    input.write("c\n".into()).await.unwrap();
    assert_eq!(read_until(&mut output, "c\n").await, "2 b\n3 c\n");
}

#[tokio::test]
async fn a_child_that_nobody_reads_is_held_up() {
    let Some(guest) = Guest::start().await else { return };
    let (client, _wires) = client(&guest);
    let id = client.spawn_child(&request("yes", "yes | head -c 4000000; echo; echo end")).await.unwrap().child_id;
    let held = eventually("the buffer is full", || async {
        let status = client.child(&id).await.unwrap();
        (status.stdout_end == 64 * 1024).then_some(status)
    });
    assert_eq!(held.await.exit, None);
    let mut output = client.child_output(id, 0);
    assert_eq!(read_until(&mut output, "\nend\n").await.len(), 4_000_005);
    assert_eq!(output.next().await.unwrap(), None);
}

#[tokio::test]
async fn ends_are_told_and_leave_nothing_behind() {
    let Some(guest) = Guest::start().await else { return };
    let (client, _wires) = client(&guest);
    let failing = request("failing", "setsid sleep 4711 & echo why >&2; exit 7");
    let id = client.spawn_child(&failing).await.unwrap().child_id;
    assert_eq!(client.wait_for_child(&id).await.unwrap().exit.unwrap().code, Some(7));
    assert_eq!(client.child_errors(&id, 0).await.unwrap(), (0, "why\n".into()));
    assert!(guest.processes("sleep 4711").is_empty());
    let taken = client.spawn_child(&failing).await.unwrap_err();
    assert!(matches!(taken, GuestCallError::Refused(error) if error.code == ErrorCode::ExecutionExists));
    client.forget_child(&id).await.unwrap();

    let stubborn = request("stubborn", "trap '' TERM; echo ready; while :; do sleep 4712; done");
    let id = client.spawn_child(&stubborn).await.unwrap().child_id;
    read_until(&mut client.child_output(id.clone(), 0), "ready\n").await;
    let refused = client.forget_child(&id).await.unwrap_err();
    assert!(matches!(refused, GuestCallError::Refused(error) if error.code == ErrorCode::ExecutionExists));
    let ended = client.end_child(&id, Duration::from_millis(50), Duration::from_millis(100)).await.unwrap();
    assert_eq!(ended.exit.unwrap().signal, Some(9));
    assert!(guest.processes("sleep 4712").is_empty());
}

#[tokio::test]
async fn a_tunnel_reaches_a_port_inside() {
    let Some(guest) = Guest::start().await else { return };
    let (client, _wires) = client(&guest);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let serving = tokio::spawn(async move {
        let (mut connection, _) = listener.accept().await.unwrap();
        let mut question = Vec::new();
        connection.read_to_end(&mut question).await.unwrap();
        connection.write_all(&question.repeat(2)).await.unwrap();
    });
    let mut tunnel = client.tunnel(port).await.unwrap();
    tunnel.write_all(&[7; 300_000]).await.unwrap();
    tunnel.shutdown().await.unwrap();
    let mut answer = Vec::new();
    tunnel.read_to_end(&mut answer).await.unwrap();
    assert_eq!(answer, [7; 600_000]);
    serving.await.unwrap();
    let refused = client.tunnel(port).await.err().unwrap();
    assert!(matches!(refused, GuestCallError::Refused(error) if error.code == ErrorCode::NotRunning));
}
