//! Problems of tokens that end.

use emergent_auth::PrincipalEnd;

use super::{ProblemKind, Refusal};

/// The problem that a call gets whose token ends before the call does.
impl From<PrincipalEnd> for Refusal {
    fn from(end: PrincipalEnd) -> Self {
        match end {
            PrincipalEnd::Revoked => {
                let detail = "the token was revoked or rotated, or has expired, while the call went on; a command that \
                              it started runs on, and another token finds it under …/processes";
                Self::new(ProblemKind::Unauthorized, detail)
            }
            PrincipalEnd::Unconfirmed => {
                let detail = "the server's store has not answered for a minute, so that the token may have been revoked; \
                              try again, and look into the server's log if it goes on";
                Self::new(ProblemKind::StoreUnavailable, detail).retry_after(5)
            }
        }
    }
}
