//! The server's memory stays bounded whatever tenants do, and is freed afterwards.
#![expect(clippy::print_stdout, reason = "the figures that were measured are worth reading")]

use std::time::Duration;

use anyhow::{Context as _, ensure};
use emergent_live_tests::{Case, Runtime, Server, api::WORKSPACES, until};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
};

const MIB: usize = 1 << 20;
/// The memory that the server may use beyond its use when idle, whatever tenants do.
const BOUND: usize = 256 * MIB;
/// The part of that memory that may stay.
const STAYS: usize = 64 * MIB;
const PATIENCE: Duration = Duration::from_secs(90);

/// A hostile guest: HTTP/2 of a few lines. The guest greets, and answers every other request with names of one letter
/// for as long as anybody takes them, up to 62 MB.
const GUEST: &str = r#"
import json, os, socket, struct, sys, threading
path, generation = sys.argv[1], int(sys.argv[2])
hello = json.dumps({"generation": generation, "version": "0", "boot_id": "x", "kernel": "x", "handed_over": True}).encode()
names = b'{"truncated":false,"files":[' + b'"a",' * 15500000 + b'"a"]}'
def frame(kind, flags, stream, payload=b''):
    return struct.pack('>I', len(payload))[1:] + bytes([kind, flags]) + struct.pack('>I', stream) + payload
def serve(peer):
    state, room, lock = {'new': 65535, 0: 65535}, threading.Condition(), threading.Lock()
    def send(data):
        with lock: peer.sendall(data)
    def need(count):
        data = b''
        while len(data) < count:
            part = peer.recv(count - len(data))
            if not part: raise EOFError
            data += part
        return data
    def answer(stream, body):
        send(frame(1, 4, stream, b'\x88'))
        at = 0
        while at < len(body):
            with room:
                room.wait_for(lambda: min(state[0], state.get(stream, 0)) > 0 or stream in gone)
                if stream in gone: return
                size = min(state[0], state[stream], 16384, len(body) - at)
                state[0] -= size; state[stream] -= size
            send(frame(0, 0, stream, body[at:at + size]))
            at += size
        send(frame(0, 1, stream))
    gone = set()
    try:
        need(24)
        send(frame(4, 0, 0))
        while True:
            head = need(9)
            length, kind, flags = int.from_bytes(head[:3], 'big'), head[3], head[4]
            stream, payload = int.from_bytes(head[5:], 'big') & 0x7fffffff, need(length)
            with room:
                if kind == 4 and not flags & 1:
                    for at in range(0, length, 6):
                        name, value = struct.unpack('>HI', payload[at:at + 6])
                        if name == 4: state['new'] = value
                    send(frame(4, 1, 0))
                elif kind == 6 and not flags & 1: send(frame(6, 1, 0, payload))
                elif kind == 8: state[stream] = state.get(stream, state['new']) + int.from_bytes(payload, 'big')
                elif kind == 3: gone.add(stream)
                elif kind == 1:
                    state.setdefault(stream, state['new'])
                    body = hello if stream == 1 else names
                    threading.Thread(target=answer, args=(stream, body), daemon=True).start()
                room.notify_all()
    except (EOFError, OSError): pass
try: os.unlink(path)
except FileNotFoundError: pass
listener = socket.socket(socket.AF_UNIX)
listener.bind(path)
os.chmod(path, 0o777)
listener.listen(64)
open('/workspace/listening', 'w').write('yes')
while True: threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
"#;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("bodies_that_are_held_open_leave_the_servers_memory_bounded", held_bodies),
        Case::new("a_guest_that_answers_without_end_leaves_the_servers_memory_bounded", hostile_guest),
    ]
}

async fn held_bodies(runtime: Runtime) -> anyhow::Result<()> {
    const BODIES: usize = 30;
    const LENGTH: usize = 30 * 1000 * 1000;
    let server = Server::on(runtime).await?;
    let id = server.api.create_default().await?;
    let idle = memory(&server)?;
    let address = server.api.base().trim_start_matches("http://").to_owned();
    let head = format!(
        "POST {WORKSPACES}/{id}/write HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {}\r\n\
         content-type: application/json\r\ncontent-length: {LENGTH}\r\n\r\n{{\"file_path\": \"f\", \"content\": \"",
        server.api.token()
    );
    let mut clients = JoinSet::new();
    for _ in 0..BODIES {
        let (head, address) = (head.clone(), address.clone());
        clients.spawn(async move {
            let (mut reader, mut writer) = TcpStream::connect(address).await?.into_split();
            let sending = async {
                writer.write_all(head.as_bytes()).await?;
                // Nearly all of it, and then nothing more.
                writer.write_all(&vec![b'a'; LENGTH - 1000]).await?;
                std::future::pending::<std::io::Result<()>>().await
            };
            let mut answer = [0; 12];
            tokio::select! {
                read = reader.read_exact(&mut answer) => read.map(drop)?,
                broken = sending => broken?,
            }
            anyhow::Ok(String::from_utf8_lossy(&answer).into_owned())
        });
    }
    let mut most = 0;
    let mut refused = 0;
    let watched = async {
        // Few are let in at a time, and whoever is let in and sends no more is sent away.
        while refused < BODIES / 2 {
            tokio::select! {
                Some(ended) = clients.join_next() => {
                    let answer = ended?.unwrap_or_default();
                    ensure!(answer.is_empty() || answer.contains(" 4") || answer.contains(" 503"), "{answer}");
                    refused += 1;
                }
                () = tokio::time::sleep(Duration::from_millis(50)) => most = most.max(memory(&server)?),
            }
        }
        Ok(())
    };
    let watched: Result<anyhow::Result<()>, _> = tokio::time::timeout(PATIENCE, watched).await;
    println!("held bodies: {} MiB when idle, {} MiB at most, {refused} refused", idle / MIB, most / MIB);
    ensure!(most < idle + BOUND, "{} MiB", most / MIB);
    watched.context("most bodies are held for as long as the client likes")??;
    // Small calls go on beside them.
    ensure!(server.api.bash(&id, "echo on").await? == "on\n");
    clients.shutdown().await;
    goes_back(&server, idle).await
}

async fn hostile_guest(runtime: Runtime) -> anyhow::Result<()> {
    let server = Server::on(runtime).await?;
    let api = &server.api;
    let id = api.create(json!({ "allow_root": true })).await?;
    let idle = memory(&server)?;
    api.tool(&id, "write", json!({ "file_path": "guest.py", "content": GUEST })).await?.success()?;
    let (socket, generation) = (emergent_guest_proto::SOCKET_PATH, emergent_guest_proto::GENERATION);
    let replace = format!("exec python3 /workspace/guest.py {socket} {generation}");
    let started = json!({ "command": replace, "user": "root", "execution_id": "guest" });
    api.post(&format!("{WORKSPACES}/{id}/processes"), started).await?.success()?;
    until("the guest is replaced", PATIENCE, || async {
        let said = api.bash(&id, "cat listening || true").await?;
        Ok(if said == "yes" { Ok(()) } else { Err("not yet".to_owned()) })
    })
    .await?;
    // New connections lead to whoever listens there now.
    api.post(&format!("{WORKSPACES}/{id}/pause"), json!({})).await?.success()?;
    api.post(&format!("{WORKSPACES}/{id}/resume"), json!({})).await?.success()?;
    let mut most = 0;
    for _ in 0..3 {
        let call = api.tool(&id, "glob", json!({ "pattern": "*" }));
        let mut call = std::pin::pin!(call);
        let reply = loop {
            tokio::select! {
                reply = &mut call => break reply?,
                () = tokio::time::sleep(Duration::from_millis(20)) => most = most.max(memory(&server)?),
            }
        };
        println!("hostile guest: {} MiB when idle, {} MiB at most, {}", idle / MIB, most / MIB, reply.status);
        ensure!(most < idle + BOUND, "{} MiB", most / MIB);
        reply.refusal(502)?;
    }
    goes_back(&server, idle).await
}

async fn goes_back(server: &Server, idle: usize) -> anyhow::Result<()> {
    until("the memory goes back", PATIENCE, || async {
        let now = memory(server)?;
        Ok(if now < idle + STAYS { Ok(()) } else { Err(format!("{} MiB of {} MiB", now / MIB, idle / MIB)) })
    })
    .await?;
    println!("afterwards: {} MiB", memory(server)? / MIB);
    Ok(())
}

/// Returns the anonymous memory of the server's process, in bytes.
fn memory(server: &Server) -> anyhow::Result<usize> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid()))?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).context("there is no RssAnon")?;
    let kib: usize = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kib << 10)
}
