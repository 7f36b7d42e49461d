//! The source or target of a copy.

use std::path::PathBuf;

/// The source or target of a copy.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum CopyEnd {
    /// A path on this machine.
    Local(PathBuf),
    /// Standard input or output.
    Stdio,
    /// A path in a workspace or a hosted server; empty for `/workspace` itself.
    Remote {
        /// The workspace or the server as the caller named it.
        owner: String,
        /// The path as the caller wrote it.
        path: String,
    },
}

impl CopyEnd {
    /// Reads `-`, `OWNER:PATH` or a local path. A local path with a colon in it is written `./a:b`.
    pub(super) fn parse(text: &str) -> Self {
        match text.split_once(':') {
            _ if text == "-" => Self::Stdio,
            Some((owner, path)) if !owner.is_empty() && !owner.contains('/') && owner != "." => {
                Self::Remote { owner: owner.to_owned(), path: path.to_owned() }
            }
            _ => Self::Local(PathBuf::from(text)),
        }
    }
}

/// Returns the last part of a path in a workspace.
pub(super) fn base_name(path: &str) -> Option<&str> {
    path.trim_end_matches('/').rsplit('/').next().filter(|name| !matches!(*name, "" | "." | ".."))
}

/// Joins one more part to a path in a workspace.
pub(super) fn join(path: &str, name: &str) -> String {
    match path.trim_end_matches('/') {
        "" if path.starts_with('/') => format!("/{name}"),
        "" => name.to_owned(),
        path => format!("{path}/{name}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read_as_people_write_them() {
        let remote = |owner: &str, path: &str| CopyEnd::Remote { owner: owner.into(), path: path.into() };
        assert_eq!(CopyEnd::parse("-"), CopyEnd::Stdio);
        assert_eq!(CopyEnd::parse("try:src/main.rs"), remote("try", "src/main.rs"));
        assert_eq!(CopyEnd::parse("try:"), remote("try", ""));
        assert_eq!(CopyEnd::parse("try:/etc/a:b"), remote("try", "/etc/a:b"));
        for local in ["a", "./a:b", "/tmp/a:b", ":a", "dir/a:b"] {
            assert_eq!(CopyEnd::parse(local), CopyEnd::Local(local.into()), "{local}");
        }
    }

    #[test]
    fn paths_in_a_workspace_are_joined_with_one_slash() {
        assert_eq!(join("", "a"), "a");
        assert_eq!(join("/", "a"), "/a");
        assert_eq!(join("b/", "a"), "b/a");
        assert_eq!(base_name("b/c/"), Some("c"));
        assert_eq!(base_name("/"), None);
        assert_eq!(base_name("b/.."), None);
    }
}
