//! Session ids of HTTP-based servers, bound to the caller who began the session.
//!
//! Such a server knows nothing of callers: everyone who knows one of its ids has the session. So callers never see its
//! ids: an id as a caller knows it ends with a mark that fits that caller alone. The key of the marks is kept in the
//! note of the server's process, so that it lasts as long as the sessions do.

use emergent_mcp::{ChildNote, LaunchError};
use http::HeaderValue;
use ring::{
    hmac,
    rand::{SecureRandom as _, SystemRandom},
};
use serde::{Deserialize, Serialize};

use crate::error::unavailable;

/// The separator between a server's id and the mark.
const BETWEEN: char = '.';
/// The number of bytes of the mark that are written.
const MARK: usize = 16;

/// The key of one process.
#[derive(Serialize, Deserialize)]
pub(crate) struct SessionKey {
    session_key: [u8; 32],
}

// === impl SessionKey ===

impl SessionKey {
    /// A new key.
    ///
    /// # Errors
    /// When the system has no random numbers.
    pub(crate) fn generate() -> Result<Self, LaunchError> {
        let mut session_key = [0; 32];
        let filled = SystemRandom::new().fill(&mut session_key);
        filled.map_err(|_| unavailable("the system has no random numbers".to_owned()))?;
        Ok(Self { session_key })
    }

    /// The key that a process was started with; `None` where its note holds none.
    pub(crate) fn of(note: &ChildNote) -> Option<Self> {
        serde_json::from_str(note.as_str()).ok()
    }

    /// The note that keeps the key with the process.
    ///
    /// # Errors
    /// Never: a key fits into a note.
    pub(crate) fn note(&self) -> Result<ChildNote, LaunchError> {
        let json = serde_json::to_string(self).map_err(|error| unavailable(error.to_string()))?;
        ChildNote::new(json).map_err(|error| unavailable(error.to_string()))
    }

    /// A server's session id in the form that this caller knows; `None` where no header can hold it.
    pub(crate) fn outward(&self, owner: &str, inner: &HeaderValue) -> Option<HeaderValue> {
        let inner = inner.to_str().ok()?;
        HeaderValue::try_from(format!("{inner}{BETWEEN}{}", self.mark(owner, inner))).ok()
    }

    /// The server's own id of the session that this caller names; `None` where the session is not this caller's.
    pub(crate) fn inward(&self, owner: &str, outward: &HeaderValue) -> Option<HeaderValue> {
        let (inner, mark) = outward.to_str().ok()?.rsplit_once(BETWEEN)?;
        let right = self.mark(owner, inner);
        // Comparing marks of marks takes the same time wherever they differ.
        let key = hmac::Key::new(hmac::HMAC_SHA256, &self.session_key);
        hmac::verify(&key, right.as_bytes(), hmac::sign(&key, mark.as_bytes()).as_ref()).ok()?;
        HeaderValue::try_from(inner).ok()
    }

    fn mark(&self, owner: &str, inner: &str) -> String {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &self.session_key);
        // An owner is the id of a token, which has no line end.
        let tag = hmac::sign(&key, format!("{owner}\n{inner}").as_bytes());
        hex::encode(&tag.as_ref()[..MARK])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_fits_the_caller_who_began_the_session_and_nobody_else() {
        let key = SessionKey::generate().unwrap();
        let inner = HeaderValue::from_static("a.session");
        let outward = key.outward("ann", &inner).unwrap();
        assert_ne!(outward, inner);
        assert_eq!(key.outward("ann", &inner), Some(outward.clone()));
        assert_eq!(key.inward("ann", &outward), Some(inner.clone()));
        assert_eq!(key.inward("bob", &outward), None);
        assert_eq!(key.inward("ann", &inner), None);
        // The process keeps its key, and another has another.
        let kept = SessionKey::of(&key.note().unwrap()).unwrap();
        assert_eq!(kept.inward("ann", &outward), Some(inner));
        assert_eq!(SessionKey::generate().unwrap().inward("ann", &outward), None);
        assert!(SessionKey::of(&ChildNote::new("{}").unwrap()).is_none());
    }
}
