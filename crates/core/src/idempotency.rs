//! Idempotency keys, and the hashes by which a key knows its request again.
//!
//! A hash is of a canonical text, in which every field has its place and its words. Keys outlive the process, and so the
//! release: a change of the text makes recorded keys belong to other requests.

use std::{collections::BTreeMap, str::FromStr};

use emergent_provider::{Isolation, ProviderKind};
use emergent_store::{IdempotencyClaim, IdleAction};
use emergent_types::{NetworkPolicy, WorkspaceId};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::{NewWorkspace, Requirements, Ttl};

/// A key that marks requests as repetitions: two requests with the same key within 24 hours are one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyKey(String);

/// A text that cannot be an [`IdempotencyKey`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an idempotency key is 1 to 255 visible ASCII characters")]
pub struct InvalidIdempotencyKey;

// === impl IdempotencyKey ===

impl IdempotencyKey {
    /// Returns the claim of this key for a new workspace. A default that the request writes out counts as one that it
    /// leaves out.
    pub(crate) fn of_create(&self, request: &NewWorkspace) -> IdempotencyClaim {
        self.claim(create_hash(request))
    }

    /// Returns the claim of this key for a snapshot.
    pub(crate) fn of_snapshot(
        &self,
        workspace: WorkspaceId,
        name: Option<&str>,
        labels: Option<&BTreeMap<String, String>>,
    ) -> IdempotencyClaim {
        self.claim(hash(json!(["snapshot", workspace.to_string(), name, labels])))
    }

    /// Returns the claim of this key for copies of a workspace.
    pub(crate) fn of_forks(&self, workspace: WorkspaceId, count: u32, copies: &NewWorkspace) -> IdempotencyClaim {
        let copies = hash(canonical(copies)).to_vec();
        self.claim(hash(json!(["fork", workspace.to_string(), count, copies])))
    }

    fn claim(&self, request_hash: [u8; 32]) -> IdempotencyClaim {
        IdempotencyClaim { key: self.0.clone(), request_hash }
    }
}

impl FromStr for IdempotencyKey {
    type Err = InvalidIdempotencyKey;

    fn from_str(text: &str) -> Result<Self, InvalidIdempotencyKey> {
        let well_formed = (1..=255).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
        if well_formed { Ok(Self(text.to_owned())) } else { Err(InvalidIdempotencyKey) }
    }
}

fn hash(canonical: Value) -> [u8; 32] {
    Sha256::digest(canonical.to_string()).into()
}

fn create_hash(request: &NewWorkspace) -> [u8; 32] {
    let mut request = request.clone();
    // A workspace that is made from a snapshot takes over from there what the request leaves out.
    if request.snapshot.is_none() {
        request.network = request.network.filter(|network| *network != NetworkPolicy::default());
        request.allow_root = request.allow_root.filter(|allowed| *allowed);
    }
    hash(canonical(&request))
}

/// Writes a request as a value; equal requests have equal values, and different requests different ones.
fn canonical(request: &NewWorkspace) -> Value {
    let ttl = request.ttl.map(|ttl| match ttl {
        Ttl::Never => json!("never"),
        Ttl::After(life) => json!(life.as_millis().to_string()),
    });
    let limits = request.limits;
    json!([
        request.name,
        request.labels,
        request.kind.as_str(),
        request.provider.map(ProviderKind::as_str),
        request.image.as_ref().map(|image| image.as_str()),
        request.snapshot.map(|snapshot| snapshot.to_string()),
        [json!(limits.cpu), json!(limits.memory_bytes), json!(limits.disk_bytes), json!(limits.pids)],
        request.network.map(|network| network.as_str()),
        request.environment,
        request.allow_root,
        ttl,
        requirements_text(request.requirements),
        [
            json!(request.idle.action.map(IdleAction::as_str)),
            json!(request.idle.after.map(|after| after.as_millis().to_string()))
        ],
    ])
}

/// Writes requirements as keys that are on record have them.
fn requirements_text(requirements: Requirements) -> String {
    // Taken apart, so that a new field cannot be forgotten.
    let Requirements { isolation, persistence, pause, snapshots, disk_quota } = requirements;
    let isolation = match isolation {
        None => "None",
        Some(Isolation::Container) => "Some(Container)",
        Some(Isolation::Gvisor) => "Some(Gvisor)",
        Some(Isolation::Hardware) => "Some(Hardware)",
    };
    format!(
        "Requirements {{ isolation: {isolation}, persistence: {persistence}, pause: {pause}, snapshots: {snapshots}, \
         disk_quota: {disk_quota} }}"
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use emergent_types::SnapshotId;

    use super::*;
    use crate::{IdleRequest, LimitsRequest};

    #[test]
    fn keys_on_record_are_known_again() {
        let requirements = Requirements { isolation: Some(Isolation::Gvisor), pause: true, ..Requirements::default() };
        let request = NewWorkspace {
            name: Some("first".to_owned()),
            labels: [("b".to_owned(), "2".to_owned()), ("a".to_owned(), "1".to_owned())].into(),
            limits: LimitsRequest { cpu: Some(0.5), ..LimitsRequest::default() },
            ttl: Some(Ttl::After(Duration::from_secs(60))),
            requirements,
            ..NewWorkspace::default()
        };
        let recorded = r#"["first",{"a":"1","b":"2"},"agent_workspace",null,null,null,[0.5,null,null,null],null,{},null,"60000","Requirements { isolation: Some(Gvisor), persistence: false, pause: true, snapshots: false, disk_quota: false }",[null,null]]"#;
        let recorded: [u8; 32] = Sha256::digest(recorded).into();
        assert_eq!(create_hash(&request), recorded);
    }

    #[test]
    fn a_default_that_is_written_out_changes_nothing() {
        let left_out = NewWorkspace::default();
        let written_out = NewWorkspace {
            network: Some(NetworkPolicy::default()),
            allow_root: Some(false),
            requirements: Requirements::default(),
            ..NewWorkspace::default()
        };
        assert_eq!(create_hash(&written_out), create_hash(&left_out));
        // A snapshot's workspace may have had something else.
        let snapshot = Some(SnapshotId::generate());
        let (left_out, written_out) = (NewWorkspace { snapshot, ..left_out }, NewWorkspace { snapshot, ..written_out });
        assert_ne!(create_hash(&written_out), create_hash(&left_out));
    }

    #[test]
    fn every_other_value_is_another_request() {
        let base = NewWorkspace::default;
        let requirements = Requirements::default();
        let changed = [
            base(),
            NewWorkspace { name: Some("a".to_owned()), ..base() },
            NewWorkspace { labels: [("a".to_owned(), "b".to_owned())].into(), ..base() },
            NewWorkspace { labels: [("b".to_owned(), "a".to_owned())].into(), ..base() },
            NewWorkspace { environment: [("a".to_owned(), "b".to_owned())].into(), ..base() },
            NewWorkspace { environment: [("a".to_owned(), "c".to_owned())].into(), ..base() },
            NewWorkspace { network: Some(NetworkPolicy::None), ..base() },
            NewWorkspace { allow_root: Some(true), ..base() },
            NewWorkspace { provider: Some(ProviderKind::Docker), ..base() },
            NewWorkspace { ttl: Some(Ttl::Never), ..base() },
            NewWorkspace { ttl: Some(Ttl::After(Duration::from_secs(1))), ..base() },
            NewWorkspace { limits: LimitsRequest { cpu: Some(1.0), ..LimitsRequest::default() }, ..base() },
            NewWorkspace { limits: LimitsRequest { pids: Some(100), ..LimitsRequest::default() }, ..base() },
            NewWorkspace { idle: IdleRequest { after: Some(Duration::from_secs(1)), action: None }, ..base() },
            NewWorkspace { requirements: Requirements { pause: true, ..requirements }, ..base() },
            NewWorkspace { requirements: Requirements { snapshots: true, ..requirements }, ..base() },
            NewWorkspace {
                requirements: Requirements { isolation: Some(Isolation::Hardware), ..requirements },
                ..base()
            },
        ];
        let hashes: std::collections::HashSet<_> = changed.iter().map(create_hash).collect();
        assert_eq!(hashes.len(), changed.len());
    }
}
