//! The helper as a privilege boundary.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    os::unix::net::UnixStream,
    path::PathBuf,
    thread,
    time::Duration,
};

use anyhow::{Context as _, ensure};
use rustix::process::Uid;

use crate::{
    Case,
    world::{Options, USER, World},
};

pub(crate) const CASES: &[Case] = &[
    ("the_helper_serves_nobody_but_those_named", nobody_else_is_served),
    ("the_helper_gives_interfaces_to_nobody_but_those_named", owners_are_named),
    ("the_helper_outlives_what_is_thrown_at_it", it_outlives_nonsense),
    ("the_helper_has_one_privilege", it_has_one_privilege),
];

/// Says a line as a user, and hears a line: empty where the helper hung up.
fn say_as(uid: u32, socket: PathBuf, line: Vec<u8>) -> anyhow::Result<String> {
    // A thread has a user of its own.
    let worker = thread::spawn(move || {
        let user = Uid::from_raw(uid);
        rustix::thread::set_thread_res_uid(user, user, user)?;
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        // A helper that has hung up already does not take it all.
        stream.write_all(&line).ok();
        stream.shutdown(std::net::Shutdown::Write).ok();
        let mut heard = String::new();
        // Nor does it always say goodbye.
        BufReader::new(stream).read_line(&mut heard).ok();
        anyhow::Ok(heard)
    });
    worker.join().map_err(|_| anyhow::anyhow!("the speaker failed"))?
}

fn nobody_else_is_served() -> anyhow::Result<()> {
    let world = World::make(&Options::default())?;
    let list = b"{\"list\":{}}\n".to_vec();
    ensure!(say_as(USER, world.socket(), list.clone())? == "{\"listed\":[]}\n");
    let refused = say_as(USER + 1, world.socket(), list)?;
    ensure!(refused.contains("\"code\":\"refused\"") && refused.contains("--allow-uid 64124"), "{refused}");
    Ok(())
}

fn owners_are_named() -> anyhow::Result<()> {
    let world = World::make(&Options::default())?;
    let attach = |owner: u32| {
        format!(
            "{{\"attach\":{{\"machine\":\"{}\",\"policy\":\"outbound\",\"owner\":{owner}}}}}\n",
            crate::world::machine(1)
        )
    };
    let refused = say_as(USER, world.socket(), attach(0).into_bytes())?;
    ensure!(refused.contains("--owner-uid 0"), "{refused}");
    ensure!(world.taps()?.is_empty());
    let attached = say_as(USER, world.socket(), attach(USER).into_bytes())?;
    ensure!(attached.contains("\"attached\":{\"name\":\"emv000000000001\""), "{attached}");
    Ok(())
}

fn it_outlives_nonsense() -> anyhow::Result<()> {
    let world = World::make(&Options::default())?;
    let nonsense = [
        b"\n".to_vec(),
        b"{}\n".to_vec(),
        b"{\"list\":{}".to_vec(),
        vec![b'['; 1 << 19],
        vec![0xff; 2 << 20],
        b"{\"detach\":{\"machine\":\"../../etc/passwd\"}}\n".to_vec(),
        b"{\"detach\":{\"machine\":\"emv0; flush ruleset\"}}\n".to_vec(),
    ];
    for line in nonsense {
        say_as(USER, world.socket(), line)?;
    }
    // More connections than there is room for, none of which says anything.
    let idle: Vec<_> = (0..40).map(|_| UnixStream::connect(world.socket())).collect::<Result<_, _>>()?;
    drop(idle);
    let mut heard = String::new();
    for _ in 0..100 {
        heard = say_as(USER, world.socket(), b"{\"list\":{}}\n".to_vec())?;
        if !heard.is_empty() {
            break;
        }
        thread::sleep(Duration::from_millis(20));
    }
    ensure!(heard == "{\"listed\":[]}\n", "{heard}");
    Ok(())
}

fn it_has_one_privilege() -> anyhow::Result<()> {
    let world = World::make(&Options::default())?;
    // It serves once it has given up the others.
    ensure!(say_as(USER, world.socket(), b"{\"list\":{}}\n".to_vec())? == "{\"listed\":[]}\n");
    let status = std::fs::read_to_string(format!("/proc/{}/status", world.helper_id().context("a helper")?))?;
    let field = |name: &str| {
        status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim).unwrap_or_default().to_owned()
    };
    let net_admin = "0000000000001000";
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
        ensure!(field(set) == net_admin, "{set} {}", field(set));
    }
    ensure!(field("Uid:") == [USER; 4].map(|uid| uid.to_string()).join("\t") && field("NoNewPrivs:") == "1");
    ensure!(field("Groups:").is_empty());
    Ok(())
}
