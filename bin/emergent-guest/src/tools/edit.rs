//! The edit tool: exact replacement, on bytes, so that odd encodings stay as they are. Line ends follow the file: if
//! all of its lines end with `\r\n`, so do those of the texts.

use std::{
    borrow::Cow,
    io::{self, Read},
    sync::Arc,
};

use emergent_guest_proto::{
    ErrorCode, GuestError, GuestPath, Sha256Hex,
    tools::{EditRequest, EditResult},
};

use crate::{
    failure::invalid,
    files::{
        hash::hash,
        replace::{self, Expected},
        target::Target,
    },
    guest::Guest,
};

/// The largest file that is edited, before and after the edit.
const MAX_SIZE: u64 = 16 << 20;

/// The number of times that an edit is tried on a file that another process writes to.
const ATTEMPTS: usize = 10;

/// A file with its text replaced.
#[derive(Debug, PartialEq, Eq)]
struct Edited {
    contents: Vec<u8>,
    replacements: u64,
    lines_changed: u64,
}

/// The reason why a text cannot be replaced.
#[derive(Debug, PartialEq, Eq)]
enum Refusal {
    Absent,
    Several(u64),
}

/// Replaces text in a file, atomically.
///
/// # Errors
/// `string_not_found`, `several_matches`, `binary_file`, `too_large`, `content_changed` when another process keeps
/// writing to the file, or the file system's error; the file is unchanged then.
pub async fn edit(guest: &Guest, request: EditRequest) -> Result<EditResult, GuestError> {
    if request.old_string.is_empty() {
        return Err(invalid("old_string", "the text to find is empty; use the write tool to make a file"));
    }
    if request.old_string == request.new_string {
        return Err(invalid("new_string", "the new text equals the old one; there is nothing to change"));
    }
    let path = guest.resolve(&request.file_path);
    let find = {
        let path = path.clone();
        move || {
            let target = Arc::new(Target::find(&path)?);
            Ok((vec![target.key_of_contents()?], target))
        }
    };
    let change = move |target: Arc<Target>| {
        for _ in 1..ATTEMPTS {
            match edit_once(&target, &request) {
                // A command writes to it at the same time.
                Err(error) if error.code == ErrorCode::ContentChanged => {}
                edited => return edited,
            }
        }
        edit_once(&target, &request)
    };
    let (edited, sha256) = guest.change(&guest.accounts.agent, find, change).await?;
    let Edited { replacements, lines_changed, .. } = edited;
    Ok(EditResult { file_path: GuestPath::from(path.as_path()), replacements, lines_changed, sha256: Some(sha256) })
}

fn edit_once(target: &Arc<Target>, request: &EditRequest) -> Result<(Edited, Sha256Hex), GuestError> {
    let path = target.path();
    let too_large = || {
        let message = format!("{} is larger than 16 MiB; edit it with a command", path.display());
        GuestError::new(ErrorCode::TooLarge, message).with_path(path)
    };
    let Some((file, _)) = target.open()? else {
        return Err(target.failed("open", &io::Error::from_raw_os_error(libc::ENOENT)));
    };
    let contents = whole(file).map_err(|error| target.failed("read", &error))?.ok_or_else(too_large)?;
    if contents.contains(&0) {
        let message = format!("{} is not a text file", path.display());
        return Err(GuestError::new(ErrorCode::BinaryFile, message).with_path(path));
    }
    let edited = replace_text(&contents, request).map_err(|refusal| explain(&refusal, &contents, path))?;
    if edited.contents.len() as u64 > MAX_SIZE {
        return Err(too_large());
    }
    replace::replace(target, &edited.contents, Expected::Bytes(&contents))?;
    let sha256 = hash(&edited.contents);
    Ok((edited, sha256))
}

/// Reads a whole file; returns `None` if it is too large: whatever its length was a moment ago, it may grow.
fn whole(file: impl Read) -> io::Result<Option<Vec<u8>>> {
    let mut contents = Vec::new();
    file.take(MAX_SIZE + 1).read_to_end(&mut contents)?;
    Ok((contents.len() as u64 <= MAX_SIZE).then_some(contents))
}

fn replace_text(contents: &[u8], request: &EditRequest) -> Result<Edited, Refusal> {
    let ends = LineEnds::of(contents);
    let (old, new) = (ends.given_to(&request.old_string), ends.given_to(&request.new_string));
    let (old, new) = (old.as_bytes(), new.as_bytes());
    let places: Vec<usize> = memchr::memmem::find_iter(contents, old).collect();
    match places.len() {
        0 => return Err(Refusal::Absent),
        1 => {}
        _ if request.replace_all => {}
        several => return Err(Refusal::Several(several as u64)),
    }
    let mut replaced = Vec::with_capacity(contents.len());
    let (mut done, mut line, mut last_line, mut lines_changed) = (0, 0_u64, None, 0);
    for &place in &places {
        replaced.extend_from_slice(&contents[done..place]);
        replaced.extend_from_slice(new);
        // A newline at the very end of the old text belongs to the line that it ends.
        let first = line + newlines(&contents[done..place]);
        let last = first + newlines(&old[..old.len() - 1]);
        lines_changed += last - first + u64::from(last_line != Some(first));
        last_line = Some(last);
        line = first + newlines(old);
        done = place + old.len();
    }
    replaced.extend_from_slice(&contents[done..]);
    Ok(Edited { contents: replaced, replacements: places.len() as u64, lines_changed })
}

/// The line ends of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LineEnds {
    /// All lines end with `\r\n`.
    CarriageReturns,
    /// Lines end with `\n`, or some with each: a text is taken as it is.
    AsGiven,
}

impl LineEnds {
    fn of(contents: &[u8]) -> Self {
        let mut ends = memchr::memchr_iter(b'\n', contents).peekable();
        let has_some = ends.peek().is_some();
        let all = ends.all(|at| at > 0 && contents.get(at - 1) == Some(&b'\r'));
        if has_some && all { Self::CarriageReturns } else { Self::AsGiven }
    }

    fn given_to(self, text: &str) -> Cow<'_, str> {
        match self {
            Self::CarriageReturns if text.contains('\n') => text.replace("\r\n", "\n").replace('\n', "\r\n").into(),
            Self::CarriageReturns | Self::AsGiven => text.into(),
        }
    }
}

fn newlines(bytes: &[u8]) -> u64 {
    memchr::memchr_iter(b'\n', bytes).count() as u64
}

fn explain(refusal: &Refusal, contents: &[u8], path: &std::path::Path) -> GuestError {
    let (code, message) = match refusal {
        Refusal::Absent => {
            let hint = if memchr::memmem::find(contents, b"\r\n").is_some() {
                " (some of its lines end with \\r\\n and others with \\n; the text must have just those)"
            } else {
                "; read the file again and copy the text exactly"
            };
            (ErrorCode::StringNotFound, format!("the text to find does not occur in {}{hint}", path.display()))
        }
        Refusal::Several(count) => {
            let message = format!(
                "the text to find occurs {count} times in {}; add lines around it to make it unique, or set replace_all",
                path.display()
            );
            (ErrorCode::SeveralMatches, message)
        }
    };
    GuestError::new(code, message).with_field("old_string").with_path(path)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn request(old: &str, new: &str, replace_all: bool) -> EditRequest {
        let (old_string, new_string) = (old.to_owned(), new.to_owned());
        EditRequest { file_path: GuestPath::parse("f").unwrap(), old_string, new_string, replace_all }
    }

    #[test]
    fn a_text_must_be_unique_unless_all_are_wanted() {
        assert_eq!(replace_text(b"a a", &request("b", "c", false)), Err(Refusal::Absent));
        assert_eq!(replace_text(b"a a", &request("a", "c", false)), Err(Refusal::Several(2)));
        let edited = replace_text(b"a a\na", &request("a", "c", true)).unwrap();
        assert_eq!((edited.contents.as_slice(), edited.replacements, edited.lines_changed), (&b"c c\nc"[..], 3, 2));
    }

    #[test]
    fn a_file_that_is_too_long_when_it_is_read_is_not_cut() {
        let size = usize::try_from(MAX_SIZE).unwrap();
        assert_eq!(whole(io::repeat(b'x').take(MAX_SIZE)).unwrap().map(|contents| contents.len()), Some(size));
        assert_eq!(whole(io::repeat(b'x')).unwrap(), None);
    }

    #[test]
    fn a_text_gets_the_line_ends_of_the_file() {
        for (file, old, new, edited) in [
            ("a\r\nb\r\n", "b", "c", "a\r\nc\r\n"),
            ("a\r\nb\r\n", "b", "c\nd", "a\r\nc\r\nd\r\n"),
            ("a\r\nb\r\n", "a\nb\n", "c\r\nd\n", "c\r\nd\r\n"),
            ("a\nb\n", "b", "c\r\nd", "a\nc\r\nd\n"),
            ("a\r\nb\n", "b", "c\nd", "a\r\nc\nd\n"),
        ] {
            let edited_to = replace_text(file.as_bytes(), &request(old, new, false)).unwrap().contents;
            assert_eq!(String::from_utf8_lossy(&edited_to), edited, "{file:?} {old:?} {new:?}");
        }
    }

    #[test]
    fn lines_are_those_that_the_old_text_touches() {
        for (old, lines) in [("b", 1), ("a\nb", 2), ("b\n", 1), ("a\nb\nc", 3)] {
            assert_eq!(replace_text(b"a\nb\nc\n", &request(old, "", false)).unwrap().lines_changed, lines, "{old:?}");
        }
    }

    proptest! {
        #[test]
        fn replacing_all_does_what_the_standard_library_does(text in "[ab\n]{0,30}", old in "[ab\n]{1,3}", new in "[xy]{0,3}") {
            match replace_text(text.as_bytes(), &request(&old, &new, true)) {
                Ok(edited) => {
                    prop_assert_eq!(edited.contents, text.replace(&old, &new).into_bytes());
                    prop_assert!(edited.lines_changed <= newlines(text.as_bytes()) + 1);
                    prop_assert!(edited.lines_changed >= 1);
                }
                Err(_) => prop_assert!(!text.contains(&old)),
            }
        }
    }
}
