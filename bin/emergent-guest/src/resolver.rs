//! Name resolution on networks where Docker's name server cannot be reached.
//!
//! On a network of its own Docker gives a container the name server 127.0.0.11, which it serves by redirecting packets
//! in the container's network namespace. gVisor's network stack does not see such redirection, so under it no server
//! answers there. The provider then names other servers, and the guest writes them to the file, once it has found that
//! Docker's own does not answer.

use std::{
    fs, io,
    net::{IpAddr, SocketAddr, UdpSocket},
    path::Path,
    time::Duration,
};

/// Docker's name server in a container.
const EMBEDDED: SocketAddr = SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 11)), 53);

/// The file that lists the name servers.
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// The time that a local name server has to answer, and the number of attempts.
const PATIENCE: Duration = Duration::from_millis(500);
const ATTEMPTS: usize = 2;

/// A question for the name servers of the root, recursion desired: the shortest that every name server answers.
const QUESTION: [u8; 17] = [0x45, 0x4d, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 1];

/// Writes `servers` to the file if it names Docker's own name server and that does not answer. Blocks for a second at
/// most.
pub fn mend(servers: &[IpAddr]) {
    match mend_file(Path::new(RESOLV_CONF), EMBEDDED, servers) {
        Ok(true) => tracing::info!("Docker's name server is out of reach here; others are written down"),
        Ok(false) => {}
        Err(error) => tracing::warn!(%error, "name servers could not be written down"),
    }
}

fn mend_file(file: &Path, embedded: SocketAddr, servers: &[IpAddr]) -> io::Result<bool> {
    if servers.is_empty() {
        return Ok(false);
    }
    let text = match fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    if !names(&text, embedded.ip()) || answers(embedded)? {
        return Ok(false);
    }
    // In place: Docker mounts the file by itself, so it cannot be replaced.
    fs::write(file, with_servers(&text, servers))?;
    Ok(true)
}

/// Whether a line of a `resolv.conf` names this server.
fn names(text: &str, server: IpAddr) -> bool {
    let mut servers = text.lines().filter_map(|line| line.trim().strip_prefix("nameserver"));
    servers.any(|named| named.trim().parse() == Ok(server))
}

/// Returns the file's text with these servers in place of its own.
fn with_servers(text: &str, servers: &[IpAddr]) -> String {
    let others = text.lines().filter(|line| !line.trim().starts_with("nameserver")).map(str::to_owned);
    let lines: Vec<_> = servers.iter().map(|server| format!("nameserver {server}")).chain(others).collect();
    lines.join("\n") + "\n"
}

/// Whether the server answers.
fn answers(server: SocketAddr) -> io::Result<bool> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.connect(server)?;
    for _ in 0..ATTEMPTS {
        // A refusal comes as the error of either call.
        if socket.send(&QUESTION).is_ok() && socket.recv(&mut [0; 512]).is_ok() {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCKERS: &str = "search example\nnameserver 127.0.0.1\noptions ndots:0\n";

    fn file() -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), DOCKERS).unwrap();
        file
    }

    fn servers() -> [IpAddr; 2] {
        ["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()]
    }

    #[test]
    fn a_deaf_name_server_is_replaced_and_the_rest_stays() {
        let (file, free) = (file(), UdpSocket::bind("127.0.0.1:0").unwrap());
        let deaf = free.local_addr().unwrap();
        drop(free);
        assert!(mend_file(file.path(), deaf, &servers()).unwrap());
        let expected = "nameserver 192.0.2.1\nnameserver 2001:db8::1\nsearch example\noptions ndots:0\n";
        assert_eq!(fs::read_to_string(file.path()).unwrap(), expected);
    }

    #[test]
    fn a_name_server_that_answers_stays() {
        let (file, server) = (file(), UdpSocket::bind("127.0.0.1:0").unwrap());
        let address = server.local_addr().unwrap();
        let answering = std::thread::spawn(move || {
            let mut question = [0; 512];
            let (length, from) = server.recv_from(&mut question).unwrap();
            server.send_to(&question[..length], from).unwrap();
        });
        assert!(!mend_file(file.path(), address, &servers()).unwrap());
        answering.join().unwrap();
        assert_eq!(fs::read_to_string(file.path()).unwrap(), DOCKERS);
    }

    #[test]
    fn a_file_that_names_another_server_stays() {
        let file = file();
        assert!(!mend_file(file.path(), "127.0.0.11:53".parse().unwrap(), &servers()).unwrap());
        assert!(!mend_file(Path::new("/nowhere/resolv.conf"), EMBEDDED, &servers()).unwrap());
    }
}
