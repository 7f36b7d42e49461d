//! The edit tool: exact replacement, on bytes, so that line ends and odd encodings stay as they are.

use std::io::Read as _;

use emergent_guest_proto::{
    ErrorCode, GuestError, GuestPath,
    tools::{EditRequest, EditResult},
};

use super::open::open_file;
use crate::{
    failure::{self, invalid},
    files::replace,
    guest::Guest,
};

/// The largest file that is edited, before and after.
const MAX_SIZE: u64 = 16 << 20;

/// A file with its text replaced.
#[derive(Debug, PartialEq, Eq)]
struct Edited {
    contents: Vec<u8>,
    replacements: u64,
    lines_changed: u64,
}

/// Why a text cannot be replaced.
#[derive(Debug, PartialEq, Eq)]
enum Refusal {
    Absent,
    Several(u64),
}

/// Replaces text in a file, atomically.
///
/// # Errors
/// `string_not_found`, `several_matches`, `binary_file`, `too_large`, or that of the file system; nothing has changed
/// then.
pub async fn edit(guest: &Guest, request: EditRequest) -> Result<EditResult, GuestError> {
    if request.old_string.is_empty() {
        return Err(invalid("old_string", "the text to find is empty; use the write tool to make a file"));
    }
    if request.old_string == request.new_string {
        return Err(invalid("new_string", "the new text equals the old one; there is nothing to change"));
    }
    let path = guest.resolve(&request.file_path);
    guest
        .as_agent(move || {
            let (file, metadata) = open_file(&path)?;
            let too_large = || {
                let message = format!("{} is larger than 16 MiB; edit it with a command", path.display());
                GuestError::new(ErrorCode::TooLarge, message).with_path(path.as_path())
            };
            if metadata.len() > MAX_SIZE {
                return Err(too_large());
            }
            let mut contents = Vec::new();
            file.take(MAX_SIZE).read_to_end(&mut contents).map_err(|error| failure::at(&path, "read", &error))?;
            if contents.contains(&0) {
                let message = format!("{} is not a text file", path.display());
                return Err(GuestError::new(ErrorCode::BinaryFile, message).with_path(path.as_path()));
            }
            let edited = replace_text(&contents, &request).map_err(|refusal| explain(&refusal, &contents, &path))?;
            if edited.contents.len() as u64 > MAX_SIZE {
                return Err(too_large());
            }
            replace::replace(&path, &edited.contents)?;
            let file_path = GuestPath::from(path.as_path());
            Ok(EditResult { file_path, replacements: edited.replacements, lines_changed: edited.lines_changed })
        })
        .await
}

fn replace_text(contents: &[u8], request: &EditRequest) -> Result<Edited, Refusal> {
    let (old, new) = (request.old_string.as_bytes(), request.new_string.as_bytes());
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

fn newlines(bytes: &[u8]) -> u64 {
    memchr::memchr_iter(b'\n', bytes).count() as u64
}

fn explain(refusal: &Refusal, contents: &[u8], path: &std::path::Path) -> GuestError {
    let (code, message) = match refusal {
        Refusal::Absent => {
            let hint = if memchr::memmem::find(contents, b"\r\n").is_some() {
                " (its lines end with \\r\\n, which the text must have too)"
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
    fn line_ends_stay_as_they_are() {
        let edited = replace_text(b"a\r\nb\r\n", &request("b", "c", false)).unwrap();
        assert_eq!(edited.contents, b"a\r\nc\r\n");
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
