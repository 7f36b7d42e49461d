//! The removal of the volumes of older builds of the guest.
//!
//! The engine refuses to remove a volume that any container uses, running or not: a workspace that was made by an older
//! server keeps the guest that it was made with. A server of that build that is about to make its first container finds
//! the volume gone, and fills it anew.

use std::time::Duration;

use bollard::{
    models::Volume,
    query_parameters::{ListVolumesOptionsBuilder, RemoveVolumeOptionsBuilder},
};
use chrono::{DateTime, Utc};

use crate::{
    engine::{Engine, EngineError, bounded, found},
    guest_volume::GuestVolume,
    labels,
};

/// Removes the volumes of other builds that are older than `older_than` and that no container uses; returns their
/// names.
pub(crate) async fn guest_volumes(
    engine: &Engine,
    ours: &GuestVolume,
    older_than: Duration,
) -> Result<Vec<String>, EngineError> {
    let docker = engine.client().await?;
    let options = ListVolumesOptionsBuilder::default().filters(&labels::having(labels::SHARED)).build();
    let volumes = bounded(docker.list_volumes(Some(options))).await?.volumes.unwrap_or_default();
    let mut removed = Vec::new();
    for volume in volumes.into_iter().filter(|volume| is_old_guest(volume, &ours.name(), Utc::now() - older_than)) {
        let options = RemoveVolumeOptionsBuilder::default().build();
        match found(bounded(docker.remove_volume(&volume.name, Some(options))).await) {
            Ok(_) => removed.push(volume.name),
            Err(error) if error.is_conflict() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(removed)
}

fn is_old_guest(volume: &Volume, ours: &str, made_before: DateTime<Utc>) -> bool {
    let made_at = volume.created_at.as_deref().and_then(|text| text.parse::<DateTime<Utc>>().ok());
    volume.labels.get(labels::SHARED).is_some_and(|what| what == labels::GUEST)
        && volume.name != ours
        && made_at.is_some_and(|made_at| made_at <= made_before)
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;

    #[test]
    fn only_old_volumes_of_other_builds_are_to_go() {
        let now = Utc::now();
        let volume = |name: &str, what: &str, age: TimeDelta| Volume {
            name: name.to_owned(),
            labels: [(labels::SHARED.to_owned(), what.to_owned())].into(),
            created_at: Some((now - age).to_rfc3339()),
            ..Volume::default()
        };
        let (day, week) = (TimeDelta::days(1), TimeDelta::days(7));
        let goes = |volume: &Volume| is_old_guest(volume, "emergent-guest-ours", now - day);
        assert!(goes(&volume("emergent-guest-other", labels::GUEST, week)));
        assert!(!goes(&volume("emergent-guest-ours", labels::GUEST, week)));
        assert!(!goes(&volume("emergent-guest-other", labels::GUEST, TimeDelta::hours(1))));
        assert!(!goes(&volume("somebody-else", "not a guest", week)));
        let undated = Volume { created_at: None, ..volume("emergent-guest-other", labels::GUEST, week) };
        assert!(!goes(&undated));
    }
}
