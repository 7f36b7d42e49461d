//! What a bridge writes into a child's note, to know the child again after a restart.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::child::ChildNote;

/// What a child is for.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "use", rename_all = "snake_case")]
pub(crate) enum Note {
    /// Not known yet, or nothing that outlives a restart.
    Starting,
    /// The child of one session.
    Session(SessionNote),
    /// The child that all sessions share.
    Shared(SharedNote),
    /// The warm child of sessionless requests.
    Modern { versions: Vec<String> },
    /// The warm child of plain calls to a server of the older era.
    Calls { version: String },
}

/// What is known of a session.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct SessionNote {
    pub(crate) id: String,
    /// The protocol version that was agreed on.
    pub(crate) version: String,
    /// Who has begun it.
    #[serde(default)]
    pub(crate) owner: Option<String>,
}

/// What is known of the shared child.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct SharedNote {
    pub(crate) version: String,
    /// The result of `initialize` as JSON, for the sessions to come.
    pub(crate) result: String,
    pub(crate) sessions: Vec<String>,
    /// Who has begun which of them.
    #[serde(default)]
    pub(crate) owners: BTreeMap<String, String>,
}

// === impl Note ===

impl Note {
    /// The note as launchers keep it; one that does not fit says nothing, and its child is not adopted.
    pub(crate) fn to_child(&self) -> ChildNote {
        let json = serde_json::to_string(self).ok();
        json.and_then(|json| ChildNote::new(json).ok())
            .unwrap_or_else(|| ChildNote::new(r#"{"use":"starting"}"#).expect("a few bytes are within the limit"))
    }

    /// Reads a note back; `None` where it is none of ours.
    pub(crate) fn from_child(note: &ChildNote) -> Option<Self> {
        serde_json::from_str(note.as_str()).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_come_back_as_they_were() {
        let result = "{\"a\": 1.0}".to_owned();
        let (version, sessions) = ("2025-11-25".to_owned(), vec!["one".to_owned()]);
        let note = Note::Shared(SharedNote { version, result, sessions, owners: BTreeMap::new() });
        match Note::from_child(&note.to_child()) {
            Some(Note::Shared(shared)) => assert_eq!(shared.result, "{\"a\": 1.0}"),
            other => panic!("{other:?}"),
        }
    }
}
