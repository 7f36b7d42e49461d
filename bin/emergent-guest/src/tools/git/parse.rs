//! The parsers of git's machine-readable answers. They come from the workspace, so they may contain anything.

use std::{ffi::OsStr, os::unix::ffi::OsStrExt as _, path::Path};

use emergent_guest_proto::{
    GuestPath,
    tools::{GitCommit, GitFile, GitResult},
};

/// The `--format` of `git log -z` that [`log`] parses.
pub(super) const LOG_FORMAT: &str = "%H%x00%an%x00%ae%x00%aI%x00%s%x00%b";

const LOG_FIELDS: usize = 6;

/// The most changed paths in an answer.
const FILE_LIMIT: usize = 10_000;

/// Reads `git status --porcelain=v2 --branch -z`. With `cut` the last record is incomplete.
pub(super) fn status(output: &[u8], cut: bool) -> GitResult {
    let (mut branch, mut commit, mut upstream, mut counts) = (None, None, None, (0, 0));
    let mut files = Vec::new();
    let mut records: Vec<&[u8]> = output.split(|byte| *byte == 0).collect();
    // After the last NUL stands nothing, or what the cut left of a record.
    records.pop();
    let mut records = records.into_iter();
    let mut truncated = cut;
    while let Some(record) = records.next() {
        if let Some(header) = record.strip_prefix(b"# ") {
            let header = String::from_utf8_lossy(header).into_owned();
            match header.split_once(' ') {
                Some(("branch.oid", id)) => commit = (id != "(initial)").then(|| id.to_owned()),
                Some(("branch.head", name)) => branch = (name != "(detached)").then(|| name.to_owned()),
                Some(("branch.upstream", name)) => upstream = Some(name.to_owned()),
                Some(("branch.ab", ahead_behind)) => counts = ahead_and_behind(ahead_behind),
                _ => {}
            }
            continue;
        }
        let original = if record.starts_with(b"2 ") { records.next() } else { None };
        let Some(file) = changed_file(record, original) else { continue };
        if files.len() == FILE_LIMIT {
            truncated = true;
            break;
        }
        files.push(file);
    }
    let (ahead, behind) = counts;
    let clean = files.is_empty() && !truncated;
    GitResult::Status { branch, commit, upstream, ahead, behind, clean, files, truncated }
}

fn ahead_and_behind(text: &str) -> (u64, u64) {
    let number = |part: Option<&str>| part.and_then(|part| part.get(1..)?.parse().ok()).unwrap_or(0);
    let mut parts = text.split(' ');
    (number(parts.next()), number(parts.next()))
}

fn changed_file(record: &[u8], original: Option<&[u8]>) -> Option<GitFile> {
    // The fields before the path: ordinary, renamed or copied, unmerged.
    let fields = match record.first()? {
        b'1' => 8,
        b'2' => 9,
        b'u' => 10,
        b'?' => {
            return Some(GitFile { path: path(record.get(2..)?)?, status: "??".into(), original_path: None });
        }
        _ => return None,
    };
    let mut parts = record.splitn(fields + 1, |byte| *byte == b' ');
    let status = String::from_utf8_lossy(parts.nth(1)?).into_owned();
    let path = path(parts.nth(fields - 2)?)?;
    Some(GitFile { path, status, original_path: original.and_then(self::path) })
}

fn path(bytes: &[u8]) -> Option<GuestPath> {
    (!bytes.is_empty()).then(|| GuestPath::from(Path::new(OsStr::from_bytes(bytes))))
}

/// Reads `git log -z` in [`LOG_FORMAT`]. An incomplete last commit is left out.
pub(super) fn log(output: &[u8]) -> Vec<GitCommit> {
    let text = String::from_utf8_lossy(output);
    let Some(text) = text.strip_suffix('\0').or_else(|| text.rsplit_once('\0').map(|(whole, _)| whole)) else {
        return Vec::new();
    };
    let fields: Vec<&str> = text.split('\0').collect();
    let commit = |fields: &[&str]| {
        let [commit, author_name, author_email, authored_at, subject, body] = fields else { return None };
        Some(GitCommit {
            commit: (*commit).to_owned(),
            author_name: (*author_name).to_owned(),
            author_email: (*author_email).to_owned(),
            authored_at: (*authored_at).to_owned(),
            subject: (*subject).to_owned(),
            body: body.trim_end().to_owned(),
        })
    };
    fields.chunks_exact(LOG_FIELDS).filter_map(commit).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_kind_of_record_is_read() {
        let output = b"# branch.oid abc\0# branch.head main\0# branch.upstream origin/main\0# branch.ab +2 -1\0\
            1 .M N... 100644 100644 100644 a b with space\0\
            2 R. N... 100644 100644 100644 a b R100 new\0old\0\
            u UU N... 100644 100644 100644 100644 a b c both\0? caf\xe9\0";
        let GitResult::Status { branch, commit, upstream, ahead, behind, clean, files, truncated } =
            status(output, false)
        else {
            panic!()
        };
        assert_eq!((branch.as_deref(), commit.as_deref()), (Some("main"), Some("abc")));
        assert_eq!((upstream.as_deref(), ahead, behind, clean, truncated), (Some("origin/main"), 2, 1, false, false));
        let shown: Vec<_> = files
            .iter()
            .map(|file| {
                (file.status.as_str(), file.path.to_string(), file.original_path.as_ref().map(ToString::to_string))
            })
            .collect();
        let expected = [
            (".M", "with space".to_owned(), None),
            ("R.", "new".to_owned(), Some("old".to_owned())),
            ("UU", "both".to_owned(), None),
            ("??", r"$'caf\xe9'".to_owned(), None),
        ];
        assert_eq!(shown, expected);
    }

    #[test]
    fn before_the_first_commit_there_is_no_commit() {
        let GitResult::Status { branch, commit, clean, .. } =
            status(b"# branch.oid (initial)\0# branch.head (detached)\0", false)
        else {
            panic!()
        };
        assert_eq!((branch, commit, clean), (None, None, true));
    }

    proptest! {
        #[test]
        fn rubbish_never_panics(output in prop::collection::vec(any::<u8>(), 0..200), cut: bool) {
            drop(status(&output, cut));
            drop(log(&output));
        }

        #[test]
        fn records_of_any_shape_never_panic(output in "([12u?#!] ?[.MRU]{0,2} ?[a-z ]{0,20}\0){0,8}") {
            drop(status(output.as_bytes(), false));
        }

        #[test]
        fn commits_survive(commits in prop::collection::vec(prop::array::uniform6("[a-z\n ]{0,9}"), 0..5)) {
            let output: String = commits.iter().flatten().map(|field| format!("{field}\0")).collect();
            let read = log(output.as_bytes());
            prop_assert_eq!(read.len(), commits.len());
            for (read, written) in read.iter().zip(&commits) {
                prop_assert_eq!(&read.subject, &written[4]);
                prop_assert_eq!(&read.body, written[5].trim_end());
            }
        }
    }
}
