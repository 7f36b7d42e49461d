//! The versions of rules: a change of their text is a change of their name.

/// Returns a name for rules that follows from their text. An empty chain of this name in a table shows which rules are
/// in force.
pub fn version_of(rules: &str) -> String {
    format!("rules_{:016x}", fingerprint(rules))
}

/// FNV-1a, 64 bits: short, and the same for every server and release.
fn fingerprint(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_rules_have_another_version() {
        assert_eq!(version_of(""), "rules_cbf29ce484222325");
        assert_ne!(version_of("accept"), version_of("drop"));
    }
}
