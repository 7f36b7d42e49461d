//! To be written.

use emergent_live_tests::Case;

pub(crate) fn cases() -> Vec<Case> {
    Vec::new()
}
