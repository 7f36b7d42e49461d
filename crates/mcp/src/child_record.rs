//! The notes that a bridge keeps with its children, to know them again after a restart.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::child::{ChildNote, NOTE_LIMIT};

/// The purpose of a child.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "use", rename_all = "snake_case")]
pub(crate) enum ChildRecord {
    /// The purpose is not known yet, or does not outlive a restart.
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

/// The facts about a session.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct SessionNote {
    pub(crate) id: String,
    /// The protocol version that was agreed on.
    pub(crate) version: String,
    /// The owner, who has begun the session.
    #[serde(default)]
    pub(crate) owner: Option<String>,
}

/// The facts about the shared child.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct SharedNote {
    pub(crate) version: String,
    /// The result of `initialize` as JSON, for the sessions to come.
    pub(crate) result: String,
    pub(crate) sessions: Vec<String>,
    /// The owners of the sessions, by the sessions' ids.
    #[serde(default)]
    pub(crate) owners: BTreeMap<String, String>,
}

// === impl SharedNote ===

impl SharedNote {
    /// A note of these sessions, each with its owner, the most useful ones first: as many as a note has room for.
    pub(crate) fn of(version: String, result: String, sessions: Vec<(String, Option<String>)>) -> Self {
        // What JSON adds to a session is quotes, commas and colons; what it adds to the rest is not known before.
        let mut room = NOTE_LIMIT.saturating_sub(serde_json::Value::from(result.as_str()).to_string().len() + 256);
        let mut note = Self { version, result, sessions: Vec::new(), owners: BTreeMap::new() };
        for (id, owner) in sessions {
            let length = 3 + id.len() + owner.as_ref().map_or(0, |owner| 6 + id.len() + owner.len());
            let Some(left) = room.checked_sub(length) else { break };
            room = left;
            note.sessions.push(id.clone());
            note.owners.extend(owner.map(|owner| (id, owner)));
        }
        note
    }
}

// === impl ChildRecord ===

impl ChildRecord {
    /// The note as launchers keep it. One that does not fit is replaced by [`Starting`](Self::Starting), and its child
    /// is not adopted.
    pub(crate) fn to_child(&self) -> ChildNote {
        let json = serde_json::to_string(self).ok();
        json.and_then(|json| ChildNote::new(json).ok())
            .unwrap_or_else(|| ChildNote::new(r#"{"use":"starting"}"#).expect("a few bytes are within the limit"))
    }

    /// Reads a note back; `None` where it is no note of ours.
    pub(crate) fn from_child(note: &ChildNote) -> Option<Self> {
        serde_json::from_str(note.as_str()).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_that_a_note_has_no_room_for_are_left_out_from_the_end() {
        let session = |number: usize| (format!("{number:032}"), Some(format!("{number:036}")));
        let note = SharedNote::of("v".to_owned(), "\"".repeat(1000), (0..2000).map(session).collect());
        let Some(ChildRecord::Shared(kept)) = ChildRecord::from_child(&ChildRecord::Shared(note).to_child()) else {
            panic!("no note")
        };
        assert_eq!(kept.sessions.first(), Some(&session(0).0));
        assert!(kept.sessions.len() > 500 && kept.owners.len() == kept.sessions.len());
    }

    #[test]
    fn notes_come_back_as_they_were() {
        let result = "{\"a\": 1.0}".to_owned();
        let (version, sessions) = ("2025-11-25".to_owned(), vec!["one".to_owned()]);
        let note = ChildRecord::Shared(SharedNote { version, result, sessions, owners: BTreeMap::new() });
        match ChildRecord::from_child(&note.to_child()) {
            Some(ChildRecord::Shared(shared)) => assert_eq!(shared.result, "{\"a\": 1.0}"),
            other => panic!("{other:?}"),
        }
    }
}
