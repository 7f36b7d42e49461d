//! The paths of hosted MCP servers in the API.

/// The path of all servers.
pub(super) const SERVERS: &str = "/api/v1/mcp/servers";

/// The path of a server, with `rest` after it. The name that a person has typed is made one segment of the path.
pub(super) fn path(server: &str, rest: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    let escape = |byte: u8| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    let segment: String = server.bytes().map(escape).collect();
    format!("{SERVERS}/{segment}{rest}")
}
