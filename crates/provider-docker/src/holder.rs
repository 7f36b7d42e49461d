//! Records of holders: one volume for each, which is empty. Its labels are the record, and its name ends with the
//! record's number. Of two processes that make a volume of one name, Docker answers both with the labels of the first.

use std::collections::HashMap;

use async_trait::async_trait;
use bollard::{
    models::{Volume, VolumeCreateRequest},
    query_parameters::{ListContainersOptionsBuilder, ListVolumesOptionsBuilder},
};
use chrono::{DateTime, Utc};
use emergent_provider::{HolderRecord, Holders, OperationError, SERVER_LABEL, newest_of_each};
use emergent_types::ServerId;

use crate::{
    DockerProvider,
    engine::{Engine, EngineError, bounded},
    labels, removal,
};

#[async_trait]
impl Holders for DockerProvider {
    async fn holders(&self) -> Result<Vec<HolderRecord>, OperationError> {
        let listed = records(&self.parts.engine, None).await;
        let listed = listed.map_err(|error| self.parts.engine.operation_error("list the holders of", error))?;
        Ok(newest_of_each(listed))
    }

    async fn record_holder(&self, record: &HolderRecord) -> Result<bool, OperationError> {
        let recorded = add(&self.parts.engine, record).await;
        recorded.map_err(|error| self.parts.engine.operation_error("record the holder of", error))
    }

    async fn forget_holder(&self, server: ServerId) -> Result<(), OperationError> {
        let removed = forget(&self.parts.engine, server).await;
        removed.map_err(|error| self.parts.engine.operation_error("remove the record of the holder of", error))
    }

    async fn engine_time(&self) -> Result<DateTime<Utc>, OperationError> {
        let asked = async { bounded(self.parts.engine.client().await?.info()).await };
        let info = asked.await.map_err(|error| self.parts.engine.operation_error("tell the time of", error))?;
        Ok(info.system_time.and_then(|text| text.parse().ok()).unwrap_or_else(Utc::now))
    }

    async fn remove_helpers(&self) -> Result<(), OperationError> {
        self.parts.root_probe.give_up().await;
        let removed = remove_helpers(&self.parts.engine, self.parts.server).await;
        removed.map_err(|error| self.parts.engine.operation_error("remove the helpers of", error))
    }
}

async fn records(engine: &Engine, of: Option<ServerId>) -> Result<Vec<HolderRecord>, EngineError> {
    let mut wanted = vec![format!("{}={}", labels::SHARED, labels::HOLDER)];
    wanted.extend(of.map(|server| format!("{SERVER_LABEL}={server}")));
    let options = ListVolumesOptionsBuilder::default().filters(&HashMap::from([("label".to_owned(), wanted)])).build();
    let volumes = bounded(engine.client().await?.list_volumes(Some(options))).await?.volumes.unwrap_or_default();
    Ok(volumes.iter().filter_map(read).collect())
}

fn read(volume: &Volume) -> Option<HolderRecord> {
    let server = volume.labels.get(SERVER_LABEL)?.parse().ok()?;
    // What has no date that can be read is new, so that nobody takes its holder for dead.
    let at = volume.created_at.as_deref().and_then(|text| text.parse().ok()).unwrap_or_else(Utc::now);
    HolderRecord::from_labels(server, at, &volume.labels)
}

async fn add(engine: &Engine, record: &HolderRecord) -> Result<bool, EngineError> {
    let docker = engine.client().await?;
    let before = records(engine, Some(record.server)).await?;
    if before.iter().any(|known| known.number > record.number) {
        return Ok(false);
    }
    let own =
        [(labels::SHARED.to_owned(), labels::HOLDER.to_owned()), (SERVER_LABEL.to_owned(), record.server.to_string())];
    let request = VolumeCreateRequest {
        name: Some(name_of(record.server, record.number)),
        labels: Some(own.into_iter().chain(record.to_labels()).collect()),
        ..VolumeCreateRequest::default()
    };
    let made = bounded(docker.create_volume(request)).await?;
    if read(&made).is_none_or(|made| made.holder.process != record.holder.process) {
        return Ok(false);
    }
    for older in before.iter().filter(|known| known.number < record.number) {
        removal::volume(docker, &name_of(older.server, older.number)).await?;
    }
    Ok(true)
}

async fn forget(engine: &Engine, server: ServerId) -> Result<(), EngineError> {
    let docker = engine.client().await?;
    for record in records(engine, Some(server)).await? {
        removal::volume(docker, &name_of(server, record.number)).await?;
    }
    Ok(())
}

fn name_of(server: ServerId, number: u64) -> String {
    format!("emergent-holder-{server}-{number}")
}

/// Removes the containers that belong to a server and to no sandbox: of probes, of copies, of the guest's volume.
async fn remove_helpers(engine: &Engine, server: ServerId) -> Result<(), EngineError> {
    let docker = engine.client().await?;
    let wanted = vec![labels::SHARED.to_owned(), format!("{SERVER_LABEL}={server}")];
    let filters = HashMap::from([("label".to_owned(), wanted)]);
    let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
    for container in bounded(docker.list_containers(Some(options))).await?.into_iter().filter_map(|it| it.id) {
        removal::container(docker, &container).await?;
    }
    Ok(())
}
