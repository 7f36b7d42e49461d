//! Holding: this process does something to an engine's sandboxes only while the engine's record names it as the one
//! that acts for its server.
//!
//! ```text
//!   unclaimed ──claim──► held ◄──┐ beat
//!       │                  │ └───┘
//!       └──another holds───┴──► lost: nothing more is done
//! ```
//!
//! A copy of a data directory has the original's server id and rows, which are older than the engine's sandboxes.
//! Acting on them would destroy what the original has made since.

mod judge;
mod provider;

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use chrono::{DateTime, Utc};
use emergent_provider::{HOLDER_ALIVE, Holder, HolderRecord, OperationError, Provider};
use emergent_types::ServerId;
use parking_lot::{Mutex, MutexGuard};
use tokio::time::sleep;

use self::judge::{Judgement, judge};

/// The time for which the record is relied on after a beat. A clock that stops while the machine sleeps is not enough,
/// nor is one that can be set, so both are asked.
const RELIED_ON: Duration = Duration::from_secs(20);
/// The interval between looks at a record whose process may be alive.
const LOOK: Duration = Duration::from_secs(1);

/// The right of a process over another that held its server before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TakeOver {
    /// Nothing: the engine's word is taken.
    Refused,
    /// The process takes the server over, unless the other process is alive.
    Wanted,
}

/// The reason for which this process may not act for its server on an engine: another process holds the server.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{} holds server {}: the process with the data directory {} on host {}, which was last heard of at {}. {}",
    .provider,
    .record.server,
    .record.holder.path,
    .record.holder.host,
    .record.at.format("%Y-%m-%d %H:%M:%S UTC"),
    advice(*.alive)
)]
pub struct NotHolder {
    /// The provider whose engine has the record.
    pub provider: emergent_provider::ProviderKind,
    /// The record of the holder.
    pub record: Box<HolderRecord>,
    /// The other process has been seen to be alive.
    pub alive: bool,
}

/// The reason for which a claim failed.
#[derive(Debug, thiserror::Error)]
pub enum HoldError {
    /// Another process holds the server.
    #[error(transparent)]
    NotHolder(#[from] NotHolder),
    /// The engine does not say.
    #[error(transparent)]
    Engine(#[from] OperationError),
}

/// A provider that does nothing to its engine unless this process is the server's holder there.
pub struct HeldProvider {
    inner: Arc<dyn Provider>,
    server: ServerId,
    holder: Holder,
    standing: Mutex<HolderState>,
    /// Held while the record is renewed: many who need it ask once.
    renewing: tokio::sync::Mutex<()>,
}

#[derive(Clone)]
enum HolderState {
    Unclaimed,
    Held { number: u64, beat: Beat },
    Lost(NotHolder),
}

/// When the engine last took this process's record.
#[derive(Clone, Copy)]
struct Beat {
    monotonic: Instant,
    wall: SystemTime,
}

fn advice(alive: bool) -> &'static str {
    if alive {
        "It is alive. Stop it first; or give this server an id of its own with `emergent serve --new-identity`, which leaves \
         the workspaces to the other one"
    } else {
        "This data directory is a copy of that one, or has been restored or moved. If this server is to go on with the \
         workspaces, and the other one never starts again, start it once with `emergent serve --take-over`. If it is to be \
         a server of its own, start it once with `emergent serve --new-identity`: the workspaces then stay with the other \
         one"
    }
}

// === impl Beat ===

impl Beat {
    fn now() -> Self {
        Self { monotonic: Instant::now(), wall: SystemTime::now() }
    }

    fn is_recent(&self) -> bool {
        let by_wall = self.wall.elapsed().is_ok_and(|elapsed| elapsed < RELIED_ON);
        by_wall && self.monotonic.elapsed() < RELIED_ON
    }
}

// === impl HeldProvider ===

impl HeldProvider {
    /// Guards a provider. Nothing is asked yet: the first to act claims, unless [`claim`](Self::claim) has.
    pub fn new(inner: Arc<dyn Provider>, server: ServerId, holder: Holder) -> Self {
        let standing = Mutex::new(HolderState::Unclaimed);
        Self { inner, server, holder, standing, renewing: tokio::sync::Mutex::default() }
    }

    /// Becomes the server's holder. Waits for up to [`HOLDER_ALIVE`] where the process before may still be alive.
    ///
    /// # Errors
    /// [`HoldError`]; nothing was changed in the engine then.
    pub async fn claim(&self, take_over: TakeOver) -> Result<(), HoldError> {
        let _one = self.renewing.lock().await;
        self.claim_alone(take_over).await
    }

    /// Whether the engine knows this process's data directory, or a later state of it, as the server's.
    ///
    /// # Errors
    /// [`OperationError`] when the engine does not say.
    pub async fn is_known(&self) -> Result<bool, OperationError> {
        Ok(self.record().await?.is_some_and(|record| record.holder.directory == self.holder.directory))
    }

    /// Says that this process ends, so that the next one need not wait, and removes what only it needed: the record of
    /// the holder too, where the server has nothing left on the engine that a copy could touch. A failure is logged:
    /// the next start makes it good.
    pub async fn end(&self) {
        let HolderState::Held { number, .. } = *self.standing() else { return };
        let ended = async {
            self.inner.remove_helpers().await?;
            // An engine that cannot list what it has may have something.
            if self.has_nothing().await.unwrap_or(false) {
                *self.standing() = HolderState::Unclaimed;
                return self.inner.forget_holder(self.server).await.map(|()| true);
            }
            self.inner.record_holder(&HolderRecord { ended: true, ..self.own_record(number + 1) }).await
        };
        if let Err(error) = ended.await {
            tracing::warn!(provider = %self.inner.kind(), %error, "the engine was not told that this server ends");
        }
    }

    /// Whether the engine has neither a sandbox nor a snapshot of the server, nor a remainder of one.
    async fn has_nothing(&self) -> Result<bool, OperationError> {
        let sandboxes = self.inner.list().await?;
        let snapshots = match self.inner.list_snapshots().await {
            Err(OperationError::Unsupported { .. }) => Vec::new(),
            listed => listed?,
        };
        let mut servers = sandboxes.iter().map(|it| it.server).chain(snapshots.iter().map(|it| it.server));
        Ok(servers.all(|server| server != self.server))
    }

    /// Makes sure that this process is the holder. While its last beat is recent that costs nothing.
    async fn ensure(&self) -> Result<(), HoldError> {
        match &*self.standing() {
            HolderState::Held { beat, .. } if beat.is_recent() => return Ok(()),
            HolderState::Lost(to) => return Err(to.clone().into()),
            HolderState::Held { .. } | HolderState::Unclaimed => {}
        }
        self.beat().await
    }

    /// Adds a record to the engine's.
    async fn beat(&self) -> Result<(), HoldError> {
        let asked = Instant::now();
        let _one = self.renewing.lock().await;
        let standing = self.standing().clone();
        match standing {
            HolderState::Lost(to) => Err(to.into()),
            HolderState::Unclaimed => self.claim_alone(TakeOver::Refused).await,
            HolderState::Held { beat, .. } if beat.monotonic > asked => Ok(()),
            HolderState::Held { number, .. } => match self.add(number + 1).await? {
                true => Ok(()),
                false => self.look_who_holds().await,
            },
        }
    }

    async fn claim_alone(&self, take_over: TakeOver) -> Result<(), HoldError> {
        let mut first_seen = None;
        loop {
            let record = self.record().await?;
            let now = if record.is_some() { self.inner.engine_time().await? } else { Utc::now() };
            match judge(&self.holder, record.as_ref(), now, take_over, first_seen) {
                Judgement::Hold(number) => {
                    if self.add(number).await? {
                        self.inner.remove_helpers().await?;
                        return Ok(());
                    }
                    // Somebody came first; what they are is looked at anew.
                }
                Judgement::Wait(number) => {
                    if first_seen.is_none() {
                        let at_most = HOLDER_ALIVE.as_secs();
                        tracing::info!(server = %self.server, at_most, "waiting to see whether another process acts");
                        first_seen = Some(number);
                    }
                    sleep(LOOK).await;
                }
                Judgement::Refuse { record, alive } => return Err(self.lose(record, alive).into()),
            }
        }
    }

    /// Adds a record, and notes that it was taken. False: another process has come first.
    async fn add(&self, number: u64) -> Result<bool, OperationError> {
        let beat = Beat::now();
        let added = self.inner.record_holder(&self.own_record(number)).await?;
        if added {
            *self.standing() = HolderState::Held { number, beat };
        }
        Ok(added)
    }

    /// Another record stands where this process's was to be.
    async fn look_who_holds(&self) -> Result<(), HoldError> {
        match self.record().await? {
            Some(record) if record.holder.process != self.holder.process => Err(self.lose(record, true).into()),
            // An answer was lost, or records were removed by hand: it goes on from what there is.
            record => {
                let number = record.map_or(0, |record| record.number);
                *self.standing() = HolderState::Held { number, beat: Beat::now() };
                Ok(())
            }
        }
    }

    fn lose(&self, record: HolderRecord, alive: bool) -> NotHolder {
        let to = NotHolder { provider: self.inner.kind(), record: Box::new(record), alive };
        tracing::error!(server = %self.server, "this process does nothing to sandboxes: {to}");
        *self.standing() = HolderState::Lost(to.clone());
        to
    }

    async fn record(&self) -> Result<Option<HolderRecord>, OperationError> {
        Ok(self.inner.holders().await?.into_iter().find(|record| record.server == self.server))
    }

    fn own_record(&self, number: u64) -> HolderRecord {
        let at = DateTime::<Utc>::UNIX_EPOCH;
        HolderRecord { server: self.server, holder: self.holder.clone(), number, ended: false, at }
    }

    fn standing(&self) -> MutexGuard<'_, HolderState> {
        self.standing.lock()
    }
}
