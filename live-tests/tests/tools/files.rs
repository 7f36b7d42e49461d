//! Files: read, written and edited as text, and carried as bytes.

use anyhow::ensure;
use emergent_live_tests::{Case, Runtime};
use futures::stream;
use reqwest::{Body, Method};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::subject::Subject;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("files_are_read_written_and_edited", files_are_read_written_and_edited),
        Case::new("as_many_changes_stay_as_parallel_edits_succeed", parallel_edits),
        Case::new("a_file_is_replaced_only_if_it_holds_what_is_expected", expected_contents),
        Case::new("what_came_of_a_change_is_told_by_its_name", outcomes),
        Case::new("files_are_listed_made_moved_and_removed", files_are_listed_made_moved_and_removed),
        Case::new("any_bytes_travel_both_ways", any_bytes_travel_both_ways),
        Case::new("a_directory_travels_both_ways", a_directory_travels_both_ways),
    ]
}

async fn files_are_read_written_and_edited(runtime: Runtime) -> anyhow::Result<()> {
    let subject = Subject::on(runtime).await?;
    let tool = |name, body| subject.tool(name, body);

    let written = json!({ "file_path": "src/deep/a.txt", "content": "one\ntwo\ntwo\n" });
    ensure!(tool("write", written).await?.success()?["created"] == true);
    let read = tool("read", json!({ "file_path": "src/deep/a.txt", "offset": 2, "limit": 1 })).await?.success()?;
    ensure!(read["content"] == "2: two\n" || read["content"] == "2: two", "{read}");
    let several = json!({ "file_path": "src/deep/a.txt", "old_string": "two", "new_string": "2" });
    let several = tool("edit", several).await?.refusal(422)?;
    let absent = json!({ "file_path": "src/deep/a.txt", "old_string": "three", "new_string": "3" });
    let absent = tool("edit", absent).await?.refusal(422)?;
    ensure!(several["type"] != absent["type"], "{several} {absent}");
    let all = json!({ "file_path": "src/deep/a.txt", "old_string": "two", "new_string": "2", "replace_all": true });
    let edited = tool("edit", all).await?.success()?;
    ensure!(edited["replacements"] == 2 && edited["lines_changed"] == 2, "{edited}");
    // `find`, since Debian 12's `stat` fails under old releases of gVisor.
    ensure!(subject.bash("find src/deep/a.txt -printf '%U:%m'").await? == "1000:644");

    let listing = tool("read", json!({ "file_path": "src" })).await?.success()?;
    ensure!(listing["content"].as_str().is_some_and(|names| names.trim() == "deep/"), "{listing}");
    tool("read", json!({ "file_path": "absent" })).await?.refusal(404)?;
    subject.bash("head -c 2000 /dev/zero > zeros; mkfifo pipe; ln -s loop loop").await?;
    let binary = tool("read", json!({ "file_path": "zeros" })).await?.success()?;
    ensure!(binary["kind"] == "binary" && binary["size"] == 2000, "{binary}");
    for odd in ["pipe", "loop"] {
        let refused = tool("read", json!({ "file_path": odd })).await?;
        ensure!(refused.status.is_client_error(), "{odd}: {refused:?}");
    }
    let protected = tool("write", json!({ "file_path": "/etc/passwd", "content": "" })).await?;
    protected.refusal(403)?;
    Ok(())
}

/// Asks for the outcome of changes whose answers were lost; one that has not come by then is not done any more.
async fn outcomes(runtime: Runtime) -> anyhow::Result<()> {
    let subject = Subject::on(runtime).await?;
    let write = async |call: &str| {
        let body = json!({ "file_path": call, "content": call });
        subject.send(subject.request(Method::POST, "write").header("Emergent-Call", call).json(&body)).await
    };
    let outcome =
        async |call: &str| subject.send(subject.request(Method::GET, &format!("calls/{call}"))).await?.success();
    let written = write("one").await?.success()?;
    let told = outcome("one").await?;
    ensure!(told == json!({ "state": "done", "answer": written }), "{told}");
    let again = write("one").await?.refusal(409)?;
    ensure!(again["type"] == "/problems/call-exists", "{again}");
    let told = outcome("two").await?;
    ensure!(told["state"] == "not_begun" && told["known_for_ms"].as_u64().is_some_and(|known| known > 0), "{told}");
    write("two").await?.refusal(409)?;
    // A microVM's volume has a `lost+found`, so only the two files are looked at.
    ensure!(
        subject.bash("ls -d one two 2>/dev/null || true").await? == "one\n",
        "the second write was to change nothing"
    );
    write("no id").await?.refusal(400)?;
    let commit = json!({ "action": "commit", "message": "none" });
    subject
        .send(subject.request(Method::POST, "git").header("Emergent-Call", "three").json(&commit))
        .await?
        .refusal(422)?;
    let told = outcome("three").await?;
    ensure!(told["state"] == "refused" && told["problem"]["type"] == "/problems/git-failed", "{told}");
    Ok(())
}

/// Edits a file many times at once, half of the edits through REST and half through MCP.
async fn parallel_edits(runtime: Runtime) -> anyhow::Result<()> {
    const EDITS: usize = 20;
    let subject = Subject::on(runtime).await?;
    let (subject, mcp) = (&subject, &subject.mcp());
    let lines: String = (0..EDITS).map(|number| format!("line {number};\n")).collect();
    for _ in 0..3 {
        subject.tool("write", json!({ "file_path": "f", "content": lines })).await?.success()?;
        let edits = (0..EDITS).map(|number| async move {
            let (old, new) = (format!("line {number};"), format!("edited {number};"));
            let edit = json!({ "file_path": "f", "old_string": old, "new_string": new });
            match number % 2 {
                0 => subject.tool("edit", edit).await?.success().map(drop),
                _ => {
                    let answer = mcp.ask("tools/call", json!({ "name": "edit", "arguments": edit })).await?;
                    ensure!(answer["result"]["structuredContent"]["replacements"] == 1, "{answer}");
                    Ok(())
                }
            }
        });
        futures::future::try_join_all(edits).await?;
        let changed = subject.bash("grep -c '^edited' f").await?;
        ensure!(changed.trim() == EDITS.to_string(), "{EDITS} edits succeeded, and {} stayed", changed.trim());
    }
    Ok(())
}

async fn expected_contents(runtime: Runtime) -> anyhow::Result<()> {
    let subject = Subject::on(runtime).await?;
    subject.bash("echo one > f; ln -s f link").await?;
    let seen = subject.tool("read", json!({ "file_path": "f" })).await?.success()?["sha256"].clone();
    subject.bash("echo two > f").await?;
    let stale = json!({ "file_path": "f", "content": "three\n", "expected_sha256": seen });
    let refused = subject.tool("write", stale).await?.refusal(412)?;
    let present = subject.bash("sha256sum f | cut -c-64").await?;
    ensure!(refused["detail"].as_str().is_some_and(|detail| detail.contains(present.trim())), "{refused}");
    let upload = |hash: &str| {
        let path = format!("files/content?path=link&expected_sha256={hash}");
        subject.send(subject.request(Method::PUT, &path).body("uploaded\n"))
    };
    upload(seen.as_str().unwrap_or_default()).await?.refusal(412)?;
    let info = upload(present.trim()).await?.success()?;
    ensure!(info["kind"] == "file" && info["size"] == 9 && info["path"] == "/workspace/f", "{info}");
    ensure!(subject.bash("cat f").await? == "uploaded\n");
    Ok(())
}

async fn files_are_listed_made_moved_and_removed(runtime: Runtime) -> anyhow::Result<()> {
    let subject = Subject::on(runtime).await?;
    let made = subject.post("files/mkdir", json!({ "path": "a/b" })).await?.success()?;
    ensure!(made["path"] == "/workspace/a/b" && made["kind"] == "directory" && made["uid"] == 1000, "{made}");
    subject.bash("echo text > a/file && ln -s file a/link").await?;
    let list = subject.get("files/list?path=a").await?.success()?;
    let kinds: Vec<_> = list["entries"].as_array().into_iter().flatten().map(|entry| entry["kind"].clone()).collect();
    ensure!(kinds == ["directory", "file", "symlink"] && list["truncated"] == false, "{list}");
    let link = subject.get("files/stat?path=a/link").await?.success()?;
    ensure!(link["kind"] == "symlink" && link["target"] == "file", "{link}");

    let moved = subject.post("files/move", json!({ "from": "a/file", "to": "a/b/moved" })).await?.success()?;
    ensure!(moved["path"] == "/workspace/a/b/moved" && moved["size"] == 5, "{moved}");
    subject.get("files/stat?path=a/file").await?.refusal(404)?;
    let remove = |body: Value| subject.post("files/remove", body);
    let full = remove(json!({ "path": "a" })).await?;
    ensure!(full.status.is_client_error(), "{full:?}");
    remove(json!({ "path": "a", "recursive": true })).await?.refusal(204)?;
    subject.get("files/list?path=a").await?.refusal(404)?;
    Ok(())
}

async fn any_bytes_travel_both_ways(runtime: Runtime) -> anyhow::Result<()> {
    let subject = Subject::on(runtime).await?;
    // Twenty megabytes that no compressor and no UTF-8 decoder likes.
    let mut bytes = Vec::with_capacity(20 << 20);
    let mut block = Sha256::digest(b"seed");
    while bytes.len() < 20 << 20 {
        block = Sha256::digest(block);
        bytes.extend_from_slice(&block);
    }
    let sum = hex::encode(Sha256::digest(&bytes));
    let chunks: Vec<_> = bytes.chunks(1 << 20).map(|chunk| Ok::<_, std::io::Error>(chunk.to_vec())).collect();
    let path = "files/content?path=%24%27d%2Fcaf%5Cxe9%27";
    let upload = subject.request(Method::PUT, path).body(Body::wrap_stream(stream::iter(chunks)));
    subject.send(upload).await?.success()?;
    let inside = subject.bash("sha256sum d/* | cut -c-65").await?;
    ensure!(inside.trim().trim_start_matches('\\') == sum, "{inside} is not {sum}");
    let back = subject.request(Method::GET, path).send().await?.error_for_status()?.bytes().await?;
    ensure!(back == bytes, "what came back differs");
    let part = subject.request(Method::GET, path).header("Range", "bytes=100-199").send().await?;
    ensure!(part.status() == 206 && part.bytes().await? == bytes[100..200], "the range is wrong");
    Ok(())
}

async fn a_directory_travels_both_ways(runtime: Runtime) -> anyhow::Result<()> {
    let subject = Subject::on(runtime).await?;
    subject.bash("mkdir -p from/sub && echo text > from/sub/file && ln -s sub/file from/link").await?;
    let path = |path: &str| format!("files/archive?path={path}");
    let archive = subject.request(Method::GET, &path("from")).send().await?.error_for_status()?.bytes().await?;
    let unpack = subject.request(Method::PUT, &path("to")).body(archive);
    subject.send(unpack).await?.refusal(204)?;
    ensure!(subject.bash("find to -name link -exec cat {} +").await? == "text\n");
    Ok(())
}
