//! The facade of hosting: [`Hosting`].

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use chrono::Utc;
use emergent_budget::Budget;
use emergent_core::{NoRoom, Workspaces};
use emergent_guest_client::Guest;
use emergent_guest_proto::ChildId as GuestChildId;
use emergent_mcp::{BridgeStatus, CallError, LaunchError, Upstream};
use emergent_provider::{EngineEventKind, Provider};
use emergent_store::{
    MCP_SERVERS_ON, McpChangeReach, McpServerAdmission, McpServerChange, McpServerId, McpServerRow, McpServerState,
    ProjectId, ServerRow, Store, StoreError,
};
use emergent_types::{CreateStep, DestroyStep, error_chain};
use futures::StreamExt as _;
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::value::RawValue;
use tokio::{
    sync::{oneshot, watch},
    time::{sleep, timeout},
};

use crate::{
    HostingConfig, HostingError, LogLines, NewServer, Server, ServerCallError, ServerUpdate, change,
    driver::Driver,
    inner::{Command, Endpoint, Entry, Inner, Reply, ServerStatus},
    proxy::{BodyError, EndpointBody},
    step::HostStep,
    validate,
};

/// The time that a shutdown waits for drivers to let go.
const GRACE: Duration = Duration::from_secs(10);
/// The pause before events are asked for again.
const EVENTS_AGAIN: Duration = Duration::from_millis(500);
/// The pause before the owners of the servers are looked up again.
const OWNERSHIP_AGAIN: Duration = Duration::from_secs(5);
/// The time that a restart or a change waits for the server's first answer: as long as a server of either era may take.
const FIRST_ANSWER: Duration = Duration::from_secs(90);
/// The time that a call waits for a server that is being started. A start that takes longer installs a package.
const PATIENCE: Duration = Duration::from_secs(20);
/// The interval between checks of sandboxes for an end that no event has told of.
const LOOK: Duration = Duration::from_secs(30);

/// All hosted servers of this process. Clones are the same service.
#[derive(Clone)]
pub struct Hosting {
    inner: Arc<Inner>,
}

/// A server that was found by its id or its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// The server's id.
    pub id: McpServerId,
    /// The server's name.
    pub name: String,
}

impl Hosting {
    /// Starts the service: every server that this process drives is brought up, all at once, in the background. What
    /// servers write is held on the budget.
    ///
    /// # Errors
    /// [`StoreError`] when the rows cannot be read.
    pub async fn start(
        config: HostingConfig,
        store: Store,
        provider: Option<Arc<dyn Provider>>,
        workspaces: Workspaces,
        budget: Budget,
    ) -> Result<Self, StoreError> {
        let hosting = Self { inner: Arc::new(Inner::new(config, store, provider, workspaces, budget)) };
        let inner = &hosting.inner;
        if inner.config.enabled {
            for row in inner.store.mcp_servers_of(inner.store.server_id()).await? {
                hosting.drive(&row);
            }
            inner.tasks.spawn(watch_engine(Arc::clone(inner)));
            inner.tasks.spawn(hosting.clone().follow_ownership());
        }
        Ok(hosting)
    }

    /// Gives up installations that are under way; the next start begins them anew. Calls go on.
    pub fn begin_shutdown(&self) {
        self.inner.stopping.cancel();
    }

    /// Lets go of all servers, which run on.
    pub async fn shutdown(&self) {
        self.begin_shutdown();
        self.inner.going_down.cancel();
        self.inner.tasks.close();
        if timeout(GRACE, self.inner.tasks.wait()).await.is_err() {
            tracing::warn!("MCP servers were still being changed; the next start takes them up again");
        }
    }

    /// Registers a server and begins to bring it up.
    ///
    /// # Errors
    /// [`HostingError`]; nothing was registered then.
    pub async fn create(&self, project: ProjectId, new: NewServer) -> Result<Server, HostingError> {
        self.check_enabled()?;
        validate::name(&new.name)?;
        let inner = &self.inner;
        let volumes = self.inner.volumes(project, new.what.volumes.as_ref()).await?;
        let spec = validate::apply(validate::defaults(&inner.config), &new.what, volumes, inner.workspaces.images())?;
        inner.workspaces.has_room(MCP_SERVERS_ON)?;
        let id = McpServerId::generate();
        let (environment_keys, environment_sealed) = self.seal(id, &new.what.environment.unwrap_or_default())?;
        let now = Utc::now();
        let row = McpServerRow {
            id,
            project,
            server: inner.store.server_id(),
            name: new.name,
            spec,
            environment_keys,
            environment_sealed,
            revision: 1,
            made_revision: None,
            state: McpServerState::Starting,
            message: None,
            last_exit: None,
            restarts: 0,
            era: None,
            runtime: None,
            warnings: Vec::new(),
            created_at: now,
            updated_at: now,
        };
        let limit = inner.workspaces.config().max_mcp_servers;
        match inner.store.mcp_servers_admit(&row, limit).await? {
            McpServerAdmission::Admitted => {}
            McpServerAdmission::NameTaken => return Err(HostingError::NameTaken(row.name)),
            McpServerAdmission::Full => return Err(HostingError::Full { limit }),
            McpServerAdmission::OverQuota(reached) => return Err(HostingError::OverQuota(reached)),
        }
        self.inner.pass(CreateStep::IntentRecorded.name());
        tracing::info!(server = %id, name = row.name, "an MCP server is registered");
        self.drive(&row);
        self.get(project, id).await
    }

    /// The server that a text names by its id or its name.
    ///
    /// # Errors
    /// [`HostingError`] when there is none.
    pub async fn find(&self, project: ProjectId, given: &str) -> Result<Named, HostingError> {
        self.check_enabled()?;
        if let Some(entry) = self.inner.given(project, given) {
            return Ok(Named { id: entry.id, name: entry.name.clone() });
        }
        let row = self.row(project, given).await?.ok_or(HostingError::NotFound)?;
        Ok(Named { id: row.id, name: row.name })
    }

    /// Returns the other server of the installation that hosts the MCP server which a text names by its id or its name;
    /// `None` to answer here. No row is read for an MCP server that this process hosts.
    ///
    /// # Errors
    /// [`HostingError`].
    pub async fn host_elsewhere(&self, project: ProjectId, given: &str) -> Result<Option<ServerRow>, HostingError> {
        self.check_enabled()?;
        self.inner.workspaces.servers().freshen().await;
        self.look_whose().await?;
        if self.inner.given(project, given).is_some() {
            return Ok(None);
        }
        match self.row(project, given).await? {
            Some(row) if row.server != self.inner.store.server_id() => {
                Ok(self.inner.store.servers_find(row.server).await?)
            }
            Some(_) | None => Ok(None),
        }
    }

    /// A project's servers in order, on whichever host, in the form that a gateway needs to list what all of them
    /// offer.
    ///
    /// # Errors
    /// [`HostingError`].
    pub async fn upstreams(&self, project: ProjectId) -> Result<Vec<Upstream>, HostingError> {
        self.check_enabled()?;
        let rows = self.inner.store.mcp_servers_list(project).await?;
        let upstream = |row: McpServerRow| {
            let version = format!("{} {}", row.id, row.revision);
            let Server { name, state, message, .. } = self.show(row);
            let runs = state == McpServerState::Running;
            let trouble = (!runs).then(|| message.unwrap_or_else(|| "it does not take requests yet".to_owned()));
            (state != McpServerState::Deleting).then_some(Upstream { name, version, trouble })
        };
        Ok(rows.into_iter().filter_map(upstream).collect())
    }

    /// A counter that changes whenever a server of this project and process comes, goes, or changes its state.
    pub fn changes(&self, project: ProjectId) -> watch::Receiver<u64> {
        self.inner.changes.of(project).subscribe()
    }

    /// One server, by its id.
    ///
    /// # Errors
    /// [`HostingError`] when it is not there.
    pub async fn get(&self, project: ProjectId, id: McpServerId) -> Result<Server, HostingError> {
        self.check_enabled()?;
        let row = self.inner.store.mcp_servers_get(project, id).await?.ok_or(HostingError::NotFound)?;
        Ok(self.show(row))
    }

    /// A project's servers, by name.
    ///
    /// # Errors
    /// [`HostingError`].
    pub async fn list(&self, project: ProjectId) -> Result<Vec<Server>, HostingError> {
        self.check_enabled()?;
        let rows = self.inner.store.mcp_servers_list(project).await?;
        Ok(rows.into_iter().map(|row| self.show(row)).collect())
    }

    /// Waits until a server is no longer starting, at most for `at_most`.
    ///
    /// # Errors
    /// [`HostingError`] when it is not there.
    pub async fn wait_ready(
        &self,
        project: ProjectId,
        id: McpServerId,
        at_most: Duration,
    ) -> Result<Server, HostingError> {
        if let Ok(entry) = self.entry(project, id).await {
            entry.wait_ready(at_most).await;
        }
        self.get(project, id).await
    }

    /// Changes a server's settings. Its processes are ended where the change needs other ones, and its container is
    /// made anew where the change needs another; its volumes stay. Returns when the server runs again, or is known not
    /// to.
    ///
    /// # Errors
    /// [`HostingError`]; nothing was changed then.
    pub async fn update(
        &self,
        project: ProjectId,
        id: McpServerId,
        update: ServerUpdate,
    ) -> Result<Server, HostingError> {
        let entry = self.entry(project, id).await?;
        let row = self.inner.store.mcp_servers_get(project, id).await?.ok_or(HostingError::NotFound)?;
        let volumes = self.inner.volumes(project, update.volumes.as_ref()).await?;
        let spec = validate::apply(row.spec.clone(), &update, volumes, self.inner.workspaces.images())?;
        let (keys, sealed) = match &update.environment {
            Some(environment) => self.seal(id, environment)?,
            None => (row.environment_keys, row.environment_sealed),
        };
        let reach = change::reach(&row.spec, &spec, update.environment.is_some());
        match self.inner.store.mcp_servers_change(id, &spec, &keys, sealed, reach).await? {
            McpServerChange::Changed => {}
            McpServerChange::Gone => return Err(HostingError::NotFound),
            McpServerChange::OverQuota(reached) => return Err(HostingError::OverQuota(reached)),
        }
        self.inner.pass(HostStep::ChangeRecorded.name());
        entry.set_call_timeout(spec.call_timeout_ms);
        // A restart policy that lets it be started again is as good as asking for that.
        let rests = entry.state().0 == McpServerState::Stopped;
        if reach > McpChangeReach::Settings || rests {
            entry.say(ServerStatus::of(McpServerState::Starting, None));
            self.ask(&entry, Command::Update).await?;
            entry.wait_ready(FIRST_ANSWER).await;
        }
        self.get(project, id).await
    }

    /// Ends a server's processes in order and starts it afresh. Returns when it runs again, or is known not to.
    ///
    /// # Errors
    /// [`HostingError`].
    pub async fn restart(&self, project: ProjectId, id: McpServerId) -> Result<Server, HostingError> {
        let entry = self.entry(project, id).await?;
        entry.say(ServerStatus::of(McpServerState::Starting, None));
        self.ask(&entry, Command::Restart).await?;
        entry.wait_ready(FIRST_ANSWER).await;
        self.get(project, id).await
    }

    /// Removes a server with its container, its volumes and its secrets. Nothing of it is left when the call returns.
    ///
    /// # Errors
    /// [`HostingError`]; the server stays `deleting` if the engine failed, and goes when it is back.
    pub async fn delete(&self, project: ProjectId, id: McpServerId) -> Result<(), HostingError> {
        let entry = self.entry(project, id).await?;
        self.inner.store.mcp_servers_record(id, McpServerState::Deleting, None).await?;
        self.inner.pass(DestroyStep::IntentRecorded.name());
        entry.say(ServerStatus::of(McpServerState::Deleting, None));
        let (reply, answer) = oneshot::channel();
        entry.send(Command::Delete(reply)).await?;
        // The command is there before the driver looks for the reason why it was interrupted.
        entry.unwanted.cancel();
        answer.await.unwrap_or(Err(HostingError::ShuttingDown))
    }

    /// The standard error of each of a server's processes, as far as its sandbox has kept it.
    ///
    /// # Errors
    /// [`HostingError`] when it is not there or does not run.
    pub async fn logs(&self, project: ProjectId, id: McpServerId) -> Result<Vec<LogLines>, HostingError> {
        let entry = self.entry(project, id).await?;
        let unreachable = |error: emergent_guest_client::GuestCallError| entry.not_running(error_chain(&error));
        let mut logs = Vec::new();
        for child in entry.guest.children().await.map_err(unreachable)?.children {
            let id: GuestChildId = child.child_id;
            // One that has just ended is told of as the last exit.
            if let Ok((offset, bytes)) = entry.guest.child_errors(&id, 0).await {
                logs.push(LogLines { process: id.to_string(), offset, bytes });
            }
        }
        Ok(logs)
    }

    /// The guest of a server's sandbox, to put files there or take them, whether its program runs or not.
    ///
    /// # Errors
    /// [`HostingError`] when the server is not there, or has no sandbox now.
    pub async fn guest(&self, project: ProjectId, id: McpServerId) -> Result<Guest, HostingError> {
        let entry = self.entry(project, id).await?;
        entry.wait_ready(PATIENCE).await;
        let (state, message) = entry.state();
        match state {
            McpServerState::Running
            | McpServerState::Failing
            | McpServerState::BackingOff
            | McpServerState::Stopped => Ok(entry.guest.clone()),
            McpServerState::Starting | McpServerState::Failed | McpServerState::Deleting => {
                Err(HostingError::NotRunning { state, message })
            }
        }
    }

    /// Checks that files may be put into servers: they may not while the host's disk is nearly full.
    ///
    /// # Errors
    /// [`HostingError::NoRoom`].
    pub fn may_write(&self) -> Result<(), HostingError> {
        match self.inner.workspaces.has_room(MCP_SERVERS_ON) {
            Err(error @ NoRoom::Disk { .. }) => Err(error.into()),
            Ok(()) | Err(NoRoom::Tasks { .. }) => Ok(()),
        }
    }

    /// Calls a method of a server once, with the handshake done here, and returns the result as the server gave it.
    ///
    /// # Errors
    /// [`ServerCallError`].
    pub async fn call(
        &self,
        project: ProjectId,
        id: McpServerId,
        method: &str,
        params: Option<Box<RawValue>>,
        at_most: Option<Duration>,
    ) -> Result<Box<RawValue>, ServerCallError> {
        let entry = self.entry(project, id).await?;
        let endpoint = entry.ready(PATIENCE).await?;
        let Endpoint::Bridge(bridge) = &*endpoint else { return Err(ServerCallError::NotBridged) };
        let time = at_most.unwrap_or_else(|| entry.call_timeout());
        bridge.call(method, params.as_deref(), time).await.map_err(|error| match error {
            CallError::Launch(LaunchError::Unavailable { reason }) => entry.not_running(reason).into(),
            error => ServerCallError::from(error),
        })
    }

    /// Answers one request to a server's endpoint.
    ///
    /// # Errors
    /// [`HostingError`] when it is not there or takes no requests now.
    pub async fn handle<B>(
        &self,
        project: ProjectId,
        id: McpServerId,
        request: Request<B>,
    ) -> Result<Response<EndpointBody>, HostingError>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BodyError>,
    {
        let entry = self.entry(project, id).await?;
        let endpoint = entry.ready(PATIENCE).await?;
        Ok(match &*endpoint {
            Endpoint::Bridge(bridge) => {
                bridge.handle(request).await.map(|body| body.map_err(Into::into).boxed_unsync())
            }
            Endpoint::Proxy(proxy) => {
                let response = proxy.handle(request, entry.call_timeout()).await;
                // One that says so itself has not answered either.
                if response.status() == StatusCode::GATEWAY_TIMEOUT {
                    entry.timed_out(true);
                } else {
                    entry.note_answer();
                }
                response
            }
        })
    }

    /// Ends the sessions that an owner, who is not let in any more, has at servers of this process.
    pub async fn end_sessions_of(&self, owner: &str) {
        for endpoint in self.inner.all().iter().filter_map(|entry| entry.endpoint()) {
            if let Endpoint::Bridge(bridge) = &*endpoint {
                bridge.end_sessions_of(owner).await;
            }
        }
    }

    /// The longest body that an endpoint takes, in bytes.
    pub fn body_limit(&self) -> usize {
        self.inner.config.body_limit
    }

    /// The settings.
    pub fn config(&self) -> &HostingConfig {
        &self.inner.config
    }

    /// Takes up servers that have become this process's, and lets go of those that are another's now.
    async fn follow_ownership(self) {
        let mut changes = self.inner.ownership.clone();
        let follow = async {
            while changes.changed().await.is_ok() {
                while let Err(error) = self.look_whose().await {
                    tracing::warn!(
                        reason = error_chain(&error),
                        "it is not known yet which MCP servers are this server's"
                    );
                    sleep(OWNERSHIP_AGAIN).await;
                }
            }
        };
        self.inner.going_down.run_until_cancelled(follow).await;
    }

    /// Makes this process drive the servers that are its own, as far as the core knows, and no others. Costs nothing
    /// while no server has changed hands.
    async fn look_whose(&self) -> Result<(), StoreError> {
        let changes = *self.inner.ownership.borrow();
        if self.inner.looked.load(Ordering::Acquire) == changes {
            return Ok(());
        }
        let _one = self.inner.looking.lock().await;
        if self.inner.looked.load(Ordering::Acquire) == changes {
            return Ok(());
        }
        let rows = self.inner.store.mcp_servers_of(self.inner.store.server_id()).await?;
        for entry in self.inner.all().iter().filter(|entry| !rows.iter().any(|row| row.id == entry.id)) {
            tracing::warn!(server = %entry.id, "another server has taken the MCP server over");
            self.inner.remove(entry.id);
            entry.let_go.cancel();
        }
        for row in rows.iter().filter(|row| self.inner.get(row.id).is_none()) {
            tracing::warn!(server = %row.id, "an MCP server is taken over");
            self.drive(row);
        }
        self.inner.looked.store(changes, Ordering::Release);
        Ok(())
    }

    async fn row(&self, project: ProjectId, given: &str) -> Result<Option<McpServerRow>, StoreError> {
        match given.parse() {
            Ok(id) => self.inner.store.mcp_servers_get(project, id).await,
            Err(_) => self.inner.store.mcp_servers_named(project, given).await,
        }
    }

    fn drive(&self, row: &McpServerRow) {
        if let Some((entry, commands)) = self.inner.enter(row) {
            self.inner.tasks.spawn(Driver::new(Arc::clone(&self.inner), entry, commands).run());
        }
    }

    async fn entry(&self, project: ProjectId, id: McpServerId) -> Result<Arc<Entry>, HostingError> {
        self.check_enabled()?;
        if let Some(entry) = self.inner.get(id) {
            return if entry.project == project { Ok(entry) } else { Err(HostingError::NotFound) };
        }
        match self.inner.store.mcp_servers_get(project, id).await? {
            // Taken over this very moment.
            Some(row) if row.server == self.inner.store.server_id() => {
                Err(HostingError::NotRunning { state: McpServerState::Starting, message: None })
            }
            Some(_) => Err(HostingError::Elsewhere),
            None => Err(HostingError::NotFound),
        }
    }

    async fn ask(&self, entry: &Entry, command: impl FnOnce(Reply) -> Command) -> Result<(), HostingError> {
        let (reply, answer) = oneshot::channel();
        entry.send(command(reply)).await?;
        answer.await.unwrap_or(Err(HostingError::ShuttingDown))
    }

    fn seal(
        &self,
        id: McpServerId,
        environment: &BTreeMap<String, String>,
    ) -> Result<(Vec<String>, Option<Vec<u8>>), HostingError> {
        validate::environment(environment)?;
        if environment.is_empty() {
            return Ok((Vec::new(), None));
        }
        let key = self.inner.config.secret_key.as_ref().ok_or(HostingError::NoKey)?;
        let sealed = key
            .seal(id.as_uuid(), environment)
            .map_err(|error| HostingError::invalid("environment", error.to_string()))?;
        Ok((environment.keys().cloned().collect(), Some(sealed)))
    }

    fn show(&self, row: McpServerRow) -> Server {
        let entry = self.inner.get(row.id);
        let mut server = Server::of(row);
        let Some(entry) = entry else { return server };
        (server.state, server.message) = entry.state();
        server.unresponsive = server.state == McpServerState::Running && entry.is_unresponsive();
        if let Some(endpoint) = entry.endpoint()
            && let Endpoint::Bridge(bridge) = &*endpoint
        {
            let BridgeStatus { sessions, children, .. } = bridge.status();
            (server.sessions, server.processes) = (sessions, children.len());
        }
        server
    }

    fn check_enabled(&self) -> Result<(), HostingError> {
        if self.inner.config.enabled { Ok(()) } else { Err(HostingError::Disabled) }
    }
}

/// Tells drivers of sandboxes that may have ended: by the engine's events, and now and then in case one was missed.
async fn watch_engine(inner: Arc<Inner>) {
    let doubt_all = || inner.all().iter().for_each(|entry| entry.doubt.notify_one());
    let follow = async {
        loop {
            if let Some(provider) = &inner.provider
                && let Ok(mut events) = provider.events().await
            {
                doubt_all();
                while let Some(event) = events.next().await {
                    let ended = matches!(
                        event.kind,
                        EngineEventKind::Exited(_) | EngineEventKind::Removed | EngineEventKind::Paused
                    );
                    if let Some(entry) = inner.get(event.workspace.into()).filter(|_| ended) {
                        entry.doubt.notify_one();
                    }
                }
            }
            sleep(EVENTS_AGAIN).await;
        }
    };
    let look = async {
        loop {
            sleep(LOOK).await;
            doubt_all();
        }
    };
    tokio::select! {
        () = follow => {}
        () = look => {}
        () = inner.going_down.cancelled() => {}
    }
}
