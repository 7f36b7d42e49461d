//! Names of interfaces.

use std::fmt;

use crate::MachineId;

/// The prefix of all our interfaces' names; the packet filter matches them by it.
pub const TAP_PREFIX: &str = "emv";

/// The name of a machine's TAP interface: the prefix and the last twelve digits of the machine's id, which is exactly
/// as long as the kernel allows.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TapName(String);

// === impl TapName ===

impl TapName {
    /// The name for a machine; always the same.
    pub fn of(machine: MachineId) -> Self {
        Self(format!("{TAP_PREFIX}{}", hex::encode(machine.tail())))
    }

    /// A name that has the shape of ours; anything else is somebody else's interface.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix(TAP_PREFIX)?;
        let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        (digits.len() == 12 && digits.bytes().all(is_digit)).then(|| Self(text.to_owned()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TapName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_as_long_as_the_kernel_allows_and_is_known_again() {
        let name = TapName::of(MachineId("0190aaaa-bbbb-7ccc-8ddd-0123456789ab".parse().unwrap()));
        assert_eq!(name.as_str(), "emv0123456789ab");
        assert_eq!(TapName::parse(name.as_str()), Some(name));
    }

    #[test]
    fn names_of_others_are_not_ours() {
        for name in ["emv", "emv0123456789aB", "emv0123456789abc", "eth0", "emv0123456789a;"] {
            assert_eq!(TapName::parse(name), None, "{name}");
        }
    }
}
