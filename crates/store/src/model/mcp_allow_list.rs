//! The hosted MCP servers, and the tools of theirs, that somebody may use.
//!
//! A token carries such a list. The list knows nothing of tokens, so that anything else that uses servers in somebody's
//! name can carry one just as well, such as a type of agents.

use std::collections::{BTreeMap, BTreeSet, btree_map::Entry};

use serde::{Deserialize, Serialize};

/// The text between a server's name and its tool's. A server's name has no underscore.
const BETWEEN: &str = "__";
/// The longest name of a server.
const LONGEST_SERVER: usize = 63;
/// The longest name of a tool.
const LONGEST_TOOL: usize = 256;

/// The servers and tools that may be used; nothing else may. Written as a list of `server` (all that it has) and
/// `server__tool` (that tool alone), by the names that servers have in the project. A server that is not there (yet)
/// may be named.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "Vec<String>", into = "Vec<String>")]
pub struct McpAllowList(BTreeMap<String, Allowed>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Allowed {
    All,
    Tools(BTreeSet<String>),
}

/// A text that names neither a server nor one of its tools.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} names no MCP server (1 to 63 of a-z, 0-9 and -) and no tool of one (server__tool)")]
pub struct InvalidMcpName(String);

// === impl McpAllowList ===

impl McpAllowList {
    /// Whether anything of this server may be used.
    pub fn allows_any_of(&self, server: &str) -> bool {
        self.0.contains_key(server)
    }

    /// Whether all that this server offers may be used.
    pub fn allows_all_of(&self, server: &str) -> bool {
        self.0.get(server) == Some(&Allowed::All)
    }

    /// Whether this tool of that server may be used.
    pub fn allows_tool(&self, server: &str, tool: &str) -> bool {
        match self.0.get(server) {
            Some(Allowed::All) => true,
            Some(Allowed::Tools(tools)) => tools.contains(tool),
            None => false,
        }
    }
}

impl TryFrom<Vec<String>> for McpAllowList {
    type Error = InvalidMcpName;

    fn try_from(entries: Vec<String>) -> Result<Self, InvalidMcpName> {
        let mut allowed = BTreeMap::new();
        for entry in entries {
            let (server, tool) = match entry.split_once(BETWEEN) {
                Some((server, tool)) => (server, Some(tool)),
                None => (entry.as_str(), None),
            };
            let in_name = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
            let is_server =
                (1..=LONGEST_SERVER).contains(&server.len()) && server.bytes().all(in_name) && !server.starts_with('-');
            let is_tool = |tool: &str| (1..=LONGEST_TOOL).contains(&tool.len()) && !tool.contains(char::is_control);
            if !is_server || !tool.is_none_or(is_tool) {
                return Err(InvalidMcpName(entry));
            }
            match (allowed.entry(server.to_owned()), tool) {
                (Entry::Occupied(mut known), None) => *known.get_mut() = Allowed::All,
                (Entry::Occupied(mut known), Some(tool)) => {
                    if let Allowed::Tools(tools) = known.get_mut() {
                        tools.insert(tool.to_owned());
                    }
                }
                (Entry::Vacant(new), None) => drop(new.insert(Allowed::All)),
                (Entry::Vacant(new), Some(tool)) => drop(new.insert(Allowed::Tools([tool.to_owned()].into()))),
            }
        }
        Ok(Self(allowed))
    }
}

impl From<McpAllowList> for Vec<String> {
    fn from(list: McpAllowList) -> Self {
        let entries = list.0.into_iter().flat_map(|(server, allowed)| match allowed {
            Allowed::All => vec![server],
            Allowed::Tools(tools) => tools.iter().map(|tool| format!("{server}{BETWEEN}{tool}")).collect(),
        });
        entries.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(entries: &[&str]) -> Result<McpAllowList, InvalidMcpName> {
        entries.iter().map(|entry| (*entry).to_owned()).collect::<Vec<_>>().try_into()
    }

    #[test]
    fn only_what_is_named_is_allowed() {
        let list = list(&["clock", "files__read", "files__read__all"]).unwrap();
        assert!(list.allows_all_of("clock") && list.allows_tool("clock", "anything"));
        assert!(list.allows_any_of("files") && !list.allows_all_of("files"));
        assert!(list.allows_tool("files", "read") && list.allows_tool("files", "read__all"));
        assert!(!list.allows_tool("files", "write") && !list.allows_any_of("other"));
        assert!(!McpAllowList::default().allows_any_of("clock"));
    }

    #[test]
    fn a_server_that_is_named_as_a_whole_is_allowed_as_a_whole() {
        for entries in [["files", "files__read"], ["files__read", "files"]] {
            assert_eq!(Vec::from(list(&entries).unwrap()), ["files"]);
        }
    }

    #[test]
    fn what_names_nothing_is_refused() {
        for bad in ["", "Files", "-files", "a_b", "__tool", "files__", "files__a\nb"] {
            assert_eq!(list(&[bad]), Err(InvalidMcpName(bad.to_owned())), "{bad:?}");
        }
    }
}
