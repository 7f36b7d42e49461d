//! The names of servers' tools and prompts behind a gateway: `server__tool`.
//!
//! A server's name has no underscore, so the first two in a row end it, and no two servers can be taken for each other.
//! A name that breaks the protocol's rules (1 to 128 of A-Z, a-z, 0-9, `_`, `-` and `.`) is changed: characters that
//! are not allowed become `_`, a long name is cut, and eight hexadecimal digits of the whole name's hash at the end
//! keep it apart from others that would look the same.

use serde_json::Value;

/// The separator between the server's name and its tool's.
const BETWEEN: &str = "__";
/// The longest name that the protocol recommends, in characters.
const LONGEST: usize = 128;
/// The length of the mark of a changed name: `_` and the digits.
const MARK: usize = 9;

/// The public name of a server's tool or prompt.
#[must_use]
pub fn public_name(server: &str, name: &str) -> String {
    let room = LONGEST.saturating_sub(server.len() + BETWEEN.len());
    if !name.is_empty() && name.len() <= room && name.chars().all(is_allowed) {
        return format!("{server}{BETWEEN}{name}");
    }
    let kept: String = name.chars().map(|it| if is_allowed(it) { it } else { '_' }).take(room - MARK).collect();
    format!("{server}{BETWEEN}{kept}_{:08x}", fnv(name))
}

/// Splits a public name into the server's name and the name within the server: the original, unless it was changed.
pub(super) fn split(public: &str) -> Option<(&str, &str)> {
    public.split_once(BETWEEN).filter(|(server, name)| !server.is_empty() && !name.is_empty())
}

/// Whether a name may have been changed: it ends as changed ones do.
pub(super) fn may_be_changed(name: &str) -> bool {
    let mark = name.len().checked_sub(MARK).and_then(|at| name.get(at..));
    mark.is_some_and(|mark| mark.starts_with('_') && mark.bytes().skip(1).all(|it| it.is_ascii_hexdigit()))
}

/// A name as JSON writes it.
pub(super) fn quoted(name: &str) -> String {
    Value::from(name).to_string()
}

fn is_allowed(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, '_' | '-' | '.')
}

/// The name's FNV-1a hash of 32 bits: the same in every release. By a collision a tool can only hide another of its own
/// server.
fn fnv(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn usual_names_are_joined_and_found_again() {
        assert_eq!(public_name("clock", "get_current_time"), "clock__get_current_time");
        assert_eq!(split("clock__get__it"), Some(("clock", "get__it")));
        assert_eq!(split("clock__"), None);
        assert_eq!(split("clock"), None);
        assert!(!may_be_changed("get_current_time"));
    }

    #[test]
    fn names_that_look_alike_stay_apart() {
        let (one, other) = (public_name("s", "a b"), public_name("s", "a/b"));
        assert_ne!(one, other);
        assert!(one.starts_with("s__a_b_") && may_be_changed(&one));
    }

    proptest! {
        #[test]
        fn every_name_is_one_by_the_rules_and_tells_its_server(server in "[a-z0-9][a-z0-9-]{0,62}", name in ".{0,300}") {
            let public = public_name(&server, &name);
            prop_assert!(public.len() <= LONGEST && public.chars().all(is_allowed));
            let (found, rest) = split(&public).expect("two parts");
            prop_assert_eq!(found, server);
            prop_assert!(rest == name || may_be_changed(rest));
        }
    }
}
