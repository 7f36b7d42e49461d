//! Raw files and archives.

use std::os::unix::{ffi::OsStrExt as _, fs::MetadataExt as _};

use bytes::Bytes;
use emergent_guest_proto::{
    ErrorCode,
    files::{FileInfo, FileKind, FileList},
    tools::ReadResult,
};
use futures::StreamExt as _;
use http::{Method, header};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use rustix::fs::{Mode, OFlags};
use serde_json::{Value, json};

use crate::support::{Body, Client, Guest, code, eventually, full, request};

async fn download(client: &Client, path: &str, range: Option<&str>) -> (u16, http::HeaderMap, Bytes) {
    let mut request = request(Method::GET, &format!("/v1/files/content?path={path}"), full(""));
    if let Some(range) = range {
        request.headers_mut().insert(header::RANGE, range.parse().unwrap());
    }
    let response = client.send(request).await;
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    (status, headers, response.into_body().collect().await.unwrap().to_bytes())
}

/// A body that sends some bytes and then waits for ever.
fn endless(first: usize) -> Body {
    let some = futures::stream::iter([Ok(Frame::data(Bytes::from(vec![7; first])))]);
    StreamBody::new(some.chain(futures::stream::pending())).boxed_unsync()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn contents_come_back_as_they_went() {
    let Some(guest) = Guest::start().await else { return };
    let client = guest.client().await;
    let contents: Vec<u8> = (0..3_000_000_u32).flat_map(u32::to_le_bytes).collect();
    let info: FileInfo =
        client.call(Method::PUT, "/v1/files/content?path=deep/er/file&mode=448", contents.clone()).await.unwrap();
    assert_eq!((info.kind, info.size, info.mode, info.uid), (FileKind::File, 12_000_000, 0o700, 1000));
    let (status, headers, got) = download(&client, "deep/er/file", None).await;
    assert_eq!((status, headers["content-length"].to_str().unwrap()), (200, "12000000"));
    assert!(got == contents);
    let (status, headers, part) = download(&client, "deep/er/file", Some("bytes=5-9")).await;
    assert_eq!((status, &part[..]), (206, &contents[5..10]));
    assert_eq!(headers["content-range"], "bytes 5-9/12000000");
    assert_eq!(headers["x-emergent-size"], "12000000");
    let (status, _, _) = download(&client, "deep/er/file", Some("bytes=12000001-")).await;
    assert_eq!(status, 400);
    let (status, _, rest) = download(&client, "deep/er/file", Some("bytes=12000000-")).await;
    assert_eq!((status, rest.len()), (206, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_replaced_file_keeps_its_permissions_unless_others_are_asked_for() {
    let Some(guest) = Guest::start().await else { return };
    let client = guest.client().await;
    client.sh("echo old > f; chmod 640 f").await;
    let kept: FileInfo = client.call(Method::PUT, "/v1/files/content?path=f", "new").await.unwrap();
    assert_eq!((kept.mode, kept.size), (0o640, 3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_upload_that_breaks_off_leaves_what_was_there() {
    let Some(guest) = Guest::start().await else { return };
    let client = guest.client().await;
    guest.put("f", "old");
    let upload = request(Method::PUT, "/v1/files/content?path=f", endless(3_000_000));
    let sending = tokio::spawn(async move { client.send(upload).await });
    let temporary = || {
        std::fs::read_dir(guest.workspace())
            .unwrap()
            .filter_map(Result::ok)
            .find(|entry| entry.file_name().as_bytes().starts_with(b".emergent-upload"))
    };
    eventually("the upload has begun", || std::future::ready(temporary())).await;
    sending.abort();
    eventually("nothing of it is left", || std::future::ready(temporary().is_none().then_some(()))).await;
    assert_eq!(std::fs::read_to_string(guest.workspace().join("f")).unwrap(), "old");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_full_disk_is_said_to_be_full_and_the_old_file_stays() {
    let Some(guest) = Guest::start().await else { return };
    let client = guest.client().await;
    let small = guest.workspace().join("small");
    std::fs::create_dir(&small).unwrap();
    let mount = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=1m,mode=0777", "tmpfs"])
        .arg(&small)
        .status();
    if !mount.is_ok_and(|status| status.success()) {
        return eprintln!("skipped: no file system can be mounted here");
    }
    client.sh("echo old > small/f").await;
    let upload = client.call::<Value>(Method::PUT, "/v1/files/content?path=small/f", vec![1; 2 << 20]).await;
    let write = client.tool::<Value>("write", json!({"file_path": "small/f", "content": "x".repeat(2 << 20)})).await;
    let left = client.sh("cat small/f; ls -A small").await;
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(2 << 20);
    header.set_mode(0o644);
    archive.append_data(&mut header, "big", vec![0; 2 << 20].as_slice()).unwrap();
    let unpack = client.call::<Value>(Method::PUT, "/v1/files/archive?path=small", archive.into_inner().unwrap()).await;
    assert!(std::process::Command::new("umount").arg(&small).status().unwrap().success());
    assert_eq!([code(upload), code(write), code(unpack)], [ErrorCode::DiskFull; 3]);
    assert_eq!(left, "old\nf\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn names_of_any_bytes_work_everywhere() {
    let Some(guest) = Guest::start().await else { return };
    let client = guest.client().await;
    let name = r"$'caf\xe9'";
    let encoded = "$'caf%5Cxe9'";
    let info: FileInfo = client.call(Method::PUT, &format!("/v1/files/content?path={encoded}"), "x\n").await.unwrap();
    assert!(info.path.as_bytes().ends_with(b"/caf\xe9"));
    let list: FileList = client.get("/v1/files/list?path=.").await.unwrap();
    assert_eq!(list.entries, [info]);
    let shown: ReadResult = client.tool("read", json!({"file_path": name})).await.unwrap();
    assert!(matches!(shown, ReadResult::Text { lines: 1, .. }));
    assert_eq!(client.sh(&format!("cat {name}")).await, "x\n");
    let found: Value = client.tool("grep", json!({"pattern": "x"})).await.unwrap();
    assert!(found["matches"][0]["file_path"].as_str().unwrap().ends_with(r"/caf\xe9'"), "{found}");
    let found: Value = client.tool("glob", json!({"pattern": "caf*"})).await.unwrap();
    assert_eq!(found["files"].as_array().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn entries_are_made_moved_and_removed() {
    let Some(guest) = Guest::start().await else { return };
    let client = guest.client().await;
    let made: FileInfo = client.post("/v1/files/mkdir", &json!({"path": "a/b"})).await.unwrap();
    assert_eq!((made.kind, made.uid, made.mode), (FileKind::Directory, 1000, 0o755));
    client.post::<FileInfo>("/v1/files/mkdir", &json!({"path": "a/b"})).await.unwrap();
    guest.put("f", "x");
    guest.put("g", "y");
    let moved: FileInfo = client.post("/v1/files/move", &json!({"from": "f", "to": "g"})).await.unwrap();
    assert_eq!((moved.size, std::fs::read_to_string(guest.workspace().join("g")).unwrap().as_str()), (1, "x"));
    let onto = client.post::<Value>("/v1/files/move", &json!({"from": "g", "to": "a"})).await;
    assert_eq!(code(onto), ErrorCode::AlreadyExists);
    let remove = |path: &str, recursive: bool| {
        let (client, body) = (client.clone(), json!({"path": path, "recursive": recursive}));
        async move { client.post::<Value>("/v1/files/remove", &body).await }
    };
    assert_eq!(code(remove("a", false).await), ErrorCode::AlreadyExists);
    remove("a", true).await.unwrap();
    client.sh("ln -s nowhere link").await;
    let link: FileInfo = client.get("/v1/files/stat?path=link").await.unwrap();
    assert_eq!((link.kind, link.target.unwrap().to_string().as_str()), (FileKind::Symlink, "nowhere"));
    remove("link", false).await.unwrap();
    for path in [".", "/", "a/..", guest.workspace().to_str().unwrap()] {
        assert_eq!(code(remove(path, true).await), ErrorCode::InvalidRequest, "{path}");
    }
    assert_eq!(code(remove("a", false).await), ErrorCode::NotFound);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn moving_across_file_systems_copies_everything() {
    let Some(guest) = Guest::start().await else { return };
    let client = guest.client().await;
    let other = tempfile::tempdir_in("/dev/shm");
    let Ok(other) = other else { return eprintln!("skipped: there is no other file system") };
    std::os::unix::fs::chown(other.path(), Some(1000), Some(1000)).unwrap();
    client.sh("mkdir -p tree/sub; echo x > tree/sub/f; chmod 700 tree/sub/f; ln -s f tree/sub/l").await;
    let target = other.path().join("tree");
    client.post::<FileInfo>("/v1/files/move", &json!({"from": "tree", "to": target.to_str().unwrap()})).await.unwrap();
    assert!(!guest.workspace().join("tree").exists());
    assert_eq!(std::fs::metadata(target.join("sub/f")).unwrap().mode() & 0o777, 0o700);
    assert_eq!(std::fs::read_to_string(target.join("sub/l")).unwrap(), "x\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_directory_goes_through_an_archive_unchanged() {
    let Some(guest) = Guest::start().await else { return };
    let client = guest.client().await;
    client.sh(r"mkdir -p d/e; echo x > d/e/f; chmod 750 d/e/f; ln -s e/f d/l; printf y > d/$'caf\xe9'; mkfifo d/pipe; head -c 1000000 /dev/urandom > d/big").await;
    let response = client.request(Method::GET, "/v1/files/archive?path=d", "").await;
    let archive = response.into_body().collect().await.unwrap().to_bytes();
    client.call::<Value>(Method::PUT, "/v1/files/archive?path=copy/of/it", archive).await.unwrap();
    let differences =
        client.sh("rm d/pipe; diff -r d copy/of/it && stat -c '%a %U' copy/of/it/e/f && readlink copy/of/it/l").await;
    let lines: Vec<_> = differences.lines().collect();
    assert!(lines[0].starts_with("750 ") && lines[1] == "e/f", "{differences}");
    let single = client.request(Method::GET, "/v1/files/archive?path=d/big", "").await;
    let single = single.into_body().collect().await.unwrap().to_bytes();
    let mut archive = tar::Archive::new(&single[..]);
    let entry = archive.entries().unwrap().next().unwrap().unwrap();
    assert_eq!((entry.path().unwrap().to_str(), entry.size()), (Some("big"), 1_000_000));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_tree_deeper_than_a_path_can_say_goes_into_an_archive() {
    let Some(guest) = Guest::start().await else { return };
    let client = guest.client().await;
    // 300 levels of 30 characters: the path of the file has more than the 4,096 bytes that the system takes.
    let (name, mode, flags) = ("a-name-of-thirty-characters-30", Mode::from_raw_mode(0o755), OFlags::DIRECTORY);
    std::fs::create_dir(guest.workspace().join("d")).unwrap();
    let mut level = rustix::fs::open(guest.workspace().join("d"), flags, Mode::empty()).unwrap();
    for _ in 0..300 {
        rustix::fs::mkdirat(&level, name, mode).unwrap();
        level = rustix::fs::openat(&level, name, flags, Mode::empty()).unwrap();
    }
    rustix::fs::openat(&level, "f", OFlags::CREATE | OFlags::WRONLY, mode).unwrap();
    rustix::fs::symlinkat("f", &level, "l").unwrap();
    let response = client.request(Method::GET, "/v1/files/archive?path=d", "").await;
    let archive = response.into_body().collect().await.expect("the archive is whole").to_bytes();
    let mut archive = tar::Archive::new(&archive[..]);
    let mut deepest = std::collections::BTreeMap::new();
    for entry in archive.entries().unwrap() {
        let entry = entry.unwrap();
        let levels = entry.path_bytes().split(|byte| *byte == b'/').count();
        *deepest.entry((levels, entry.header().entry_type() == tar::EntryType::Directory)).or_insert(0) += 1;
    }
    assert_eq!(deepest.len(), 301, "each level is there");
    assert_eq!(deepest[&(301, false)], 2, "a file and a link at the bottom");
}

fn archive_of(name: &str, kind: tar::EntryType, link: &str) -> Vec<u8> {
    let mut header = tar::Header::new_gnu();
    // Not through `set_path`, which refuses what an attacker would write.
    header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
    header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
    header.set_entry_type(kind);
    header.set_mode(0o644);
    header.set_size(0);
    header.set_cksum();
    let mut bytes = header.as_bytes().to_vec();
    bytes.resize(bytes.len() + 1024, 0);
    bytes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_archive_cannot_leave_its_directory() {
    let Some(guest) = Guest::start().await else { return };
    let client = guest.client().await;
    let outside = guest.put("outside", "untouched");
    guest.put("in/x", "");
    client.sh("ln -s .. in/up").await;
    let regular = tar::EntryType::Regular;
    for archive in [
        archive_of("../outside", regular, ""),
        archive_of(outside.to_str().unwrap(), regular, ""),
        archive_of("up/outside", regular, ""),
        archive_of("hard", tar::EntryType::Link, outside.to_str().unwrap()),
        archive_of("hard", tar::EntryType::Link, "../outside"),
        b"no archive at all".repeat(100),
    ] {
        let refused = client.call::<Value>(Method::PUT, "/v1/files/archive?path=in", archive).await;
        assert_eq!(code(refused), ErrorCode::InvalidRequest);
    }
    assert_eq!(std::fs::read_to_string(outside).unwrap(), "untouched");
    assert!(!guest.workspace().join("in/hard").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_file_of_five_gigabytes_is_read_in_part_with_little_memory() {
    let Some(guest) = Guest::start().await else { return };
    let client = guest.client().await;
    let path = guest.put("huge", "first line\n");
    std::fs::File::options().write(true).open(&path).unwrap().set_len(5 << 30).unwrap();
    client.sh("printf 'the end' >> huge").await;
    let (status, headers, end) = download(&client, "huge", Some("bytes=5368709120-")).await;
    assert_eq!((status, &end[..]), (206, &b"the end"[..]));
    assert_eq!(headers["x-emergent-size"], "5368709127");
    let shown: ReadResult = client.tool("read", json!({"file_path": "huge"})).await.unwrap();
    assert!(matches!(shown, ReadResult::Binary { size: 5_368_709_127, .. }), "{shown:?}");
    let response = client.request(Method::GET, "/v1/files/content?path=huge", "").await;
    let mut body = response.into_body();
    for _ in 0..100 {
        body.frame().await.unwrap().unwrap();
    }
    drop(body);
    let status = std::fs::read_to_string(format!("/proc/{}/status", guest.child.id())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(peak < 100_000, "{peak} kB");
}
