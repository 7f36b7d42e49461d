//! The servers that share a database: their identities, their leases, and the takeover of a dead server's workspaces.
//!
//! A server holds a lease on its own row and renews it. A server that did not for [`LEASE`] may be dead, or suspended,
//! or cut off: the others take its workspaces, and it finds out before it does anything more, because its lease is
//! then no longer its own to renew:
//!
//! ```text
//!   claimed ──renewed in time──► claimed
//!      │ ran out
//!      ▼
//!   lapsed ──another server takes the rows──► taken
//!      │                                        │
//!      └── the server is back: claimed again, and looks at its rows anew
//! ```
//!
//! All times are the database's, so that the servers' clocks may differ.

use std::{collections::BTreeMap, time::Duration};

use chrono::{DateTime, TimeDelta, Utc};
use emergent_provider::ProviderKind;
use emergent_types::ServerId;
use sea_orm::{
    ActiveValue::Set,
    ColumnTrait as _, Condition, ConnectionTrait, DbBackend, DbErr, EntityTrait as _, JsonValue, QueryFilter as _,
    QueryOrder as _, Statement,
    sea_query::{Expr, OnConflict},
};
use uuid::Uuid;

use crate::{
    MCP_SERVERS_ON, OpenError, StateKind, Store, StoreError, WorkspaceRow,
    connection::{Alone, Writer},
    entity::{
        mcp_server,
        server::{ActiveModel, Column, Entity, Model},
        snapshot, workspace,
    },
    error::Doing as _,
    model::words::{from_json, parse},
    time::now,
};

/// The time for which a server counts as alive after it was last heard of.
pub const LEASE: Duration = Duration::from_secs(30);
const LEASE_DELTA: TimeDelta = TimeDelta::seconds(30);

/// The identity that a server claims.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServerIdentity {
    /// A name for people, such as that of the server's host.
    pub name: Option<String>,
    /// The address at which the other servers reach the server.
    pub url: Option<String>,
    /// Tells two processes apart that have the same id by mistake: the same text only where the one before has ended
    /// for certain.
    pub holder: String,
}

/// A server, as the others see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerRow {
    /// The server's id, here and in the labels of all that it made.
    pub id: ServerId,
    /// A name, for people.
    pub name: Option<String>,
    /// The address at which the other servers reach the server.
    pub url: Option<String>,
    /// The engine of each of its providers.
    pub engines: Engines,
    /// The server takes no new workspaces.
    pub draining: bool,
    /// The server's lease runs.
    pub alive: bool,
    /// The time at which the server's row was made.
    pub created_at: DateTime<Utc>,
}

/// Engines by the providers that drive them, each by an id that no other engine has.
pub type Engines = BTreeMap<ProviderKind, String>;

/// The workspaces and hosted MCP servers that were taken over from a dead server.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TakenOver {
    /// The workspaces that are this server's now.
    pub workspaces: Vec<WorkspaceRow>,
    /// The number of hosted MCP servers that are this server's now.
    pub mcp_servers: u64,
}

/// The result of renewing a lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Renewal {
    /// The lease runs on.
    Renewed(ServerRow),
    /// The lease had run out; it runs again. The server's knowledge of its workspaces may no longer be true.
    ClaimedAnew(ServerRow),
    /// Another process has the lease: this one must do nothing more.
    Usurped,
}

/// Claims a server's lease for this process. `None`: the server that the database was made by.
pub(crate) async fn claim(
    writer: &Writer,
    server: Option<ServerId>,
    process: Uuid,
    identity: &ServerIdentity,
) -> Result<ServerId, OpenError> {
    let transaction =
        writer.begin_alone(Alone::Installation, "begin claiming a lease").await.map_err(OpenError::Prepare)?;
    let claimed = async {
        let known = match server {
            Some(id) => Entity::find_by_id(id.as_uuid()).one(&transaction).await,
            None => Entity::find().order_by_asc(Column::CreatedAt).one(&transaction).await,
        };
        let known = known.doing("find itself")?;
        let now = clock(&transaction).await?;
        let runs = known.as_ref().and_then(|row| row.lease_expires_at).is_some_and(|end| end > now);
        let holder = known.as_ref().and_then(|row| row.holder.clone()).unwrap_or_default();
        let known_id = known.map(|row| row.id.into());
        let id = server.or(known_id).unwrap_or_else(ServerId::generate);
        if runs && holder != identity.holder {
            return Ok(Err(id));
        }
        let row = ActiveModel {
            id: Set(id.as_uuid()),
            created_at: Set(now),
            name: Set(identity.name.clone()),
            url: Set(identity.url.clone()),
            holder: Set(Some(identity.holder.clone())),
            process_id: Set(Some(process)),
            engine_ids: Set(None),
            lease_expires_at: Set(Some(now + LEASE_DELTA)),
            draining: Set(false),
        };
        let changed = [Column::Name, Column::Url, Column::Holder, Column::ProcessId, Column::LeaseExpiresAt];
        let or_take = OnConflict::column(Column::Id).update_columns(changed).to_owned();
        Entity::insert(row).on_conflict(or_take).exec_without_returning(&transaction).await.doing("claim a lease")?;
        Ok(Ok(id))
    };
    let claimed: Result<Result<ServerId, ServerId>, StoreError> = claimed.await;
    let claimed = claimed.map_err(OpenError::Prepare)?;
    transaction.commit().await.doing("claim a lease").map_err(OpenError::Prepare)?;
    claimed.map_err(|server| OpenError::ServerInUse { server })
}

/// The database's clock.
async fn clock(connection: &impl ConnectionTrait) -> Result<DateTime<Utc>, StoreError> {
    if connection.get_database_backend() != DbBackend::Postgres {
        return Ok(now());
    }
    let ask = Statement::from_string(DbBackend::Postgres, "SELECT clock_timestamp()");
    let row = connection.query_one_raw(ask).await.and_then(|row| row.ok_or(DbErr::RecordNotFound("its clock".into())));
    row.and_then(|row| row.try_get_by_index(0)).doing("tell the time")
}

// === impl Store ===

impl Store {
    /// Renews this server's lease and records which engines it drives. To be called every third of [`LEASE`], and
    /// whenever a server that may have been suspended wants to act.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails: whether the lease runs is then unknown.
    pub async fn servers_renew(&self, engines: &Engines) -> Result<Renewal, StoreError> {
        let connection = self.writer.connection();
        let now = clock(connection).await?;
        let mine = Entity::update_many()
            .filter(Column::Id.eq(self.server_id().as_uuid()))
            .filter(Column::ProcessId.eq(self.process_id()))
            .col_expr(Column::LeaseExpiresAt, Expr::value(now + LEASE_DELTA))
            .col_expr(Column::EngineIds, Expr::value(engines_json(engines)));
        let in_time = mine.clone().filter(Column::LeaseExpiresAt.gt(now));
        if let Some(row) = in_time.exec_with_returning(connection).await.doing("renew a lease")?.into_iter().next() {
            return Ok(Renewal::Renewed(ServerRow::read(row, now)?));
        }
        let row = mine.exec_with_returning(connection).await.doing("claim a lease")?.into_iter().next();
        Ok(match row {
            Some(row) => Renewal::ClaimedAnew(ServerRow::read(row, now)?),
            None => Renewal::Usurped,
        })
    }

    /// Every server that there ever was, the oldest first.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn servers_list(&self) -> Result<Vec<ServerRow>, StoreError> {
        let connection = self.reader.connection();
        let rows = Entity::find().order_by_asc(Column::CreatedAt).all(connection).await.doing("list servers")?;
        let now = clock(connection).await?;
        rows.into_iter().map(|row| ServerRow::read(row, now)).collect()
    }

    /// One server.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn servers_find(&self, id: ServerId) -> Result<Option<ServerRow>, StoreError> {
        let connection = self.reader.connection();
        let row = Entity::find_by_id(id.as_uuid()).one(connection).await.doing("find a server")?;
        let now = clock(connection).await?;
        row.map(|row| ServerRow::read(row, now)).transpose()
    }

    /// Lets this server take new workspaces, or no more of them.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn servers_set_draining(&self, draining: bool) -> Result<(), StoreError> {
        let update = Entity::update_many()
            .filter(Column::Id.eq(self.server_id().as_uuid()))
            .col_expr(Column::Draining, Expr::value(draining));
        update.exec(self.writer.connection()).await.doing("record that a server drains")?;
        Ok(())
    }

    /// Takes over all that a server drives on these providers, if its lease has run out: workspaces, snapshots and
    /// hosted MCP servers. Each of them goes to one of the servers that try at once. A server that renews its lease at
    /// this moment either keeps all of them, or learns that it had lost the lease.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails; nothing has changed hands then.
    pub async fn servers_take_over(&self, dead: ServerId, providers: &[ProviderKind]) -> Result<TakenOver, StoreError> {
        const ACTION: &str = "take a server's workspaces over";
        let transaction = self.writer.begin(ACTION).await?;
        let now = clock(&transaction).await?;
        // Ends the lease for good, under the lock of its row: a renewal comes before this, or fails after it.
        let lapsed = Condition::any().add(Column::LeaseExpiresAt.is_null()).add(Column::LeaseExpiresAt.lt(now));
        let end = Entity::update_many()
            .filter(Column::Id.eq(dead.as_uuid()))
            .filter(lapsed)
            .col_expr(Column::LeaseExpiresAt, Expr::value(None::<DateTime<Utc>>));
        if end.exec(&transaction).await.doing(ACTION)?.rows_affected == 0 {
            return Ok(TakenOver::default());
        }
        let take = workspace::Entity::update_many()
            .filter(workspace::Column::ServerId.eq(dead.as_uuid()))
            .filter(workspace::Column::Provider.is_in(providers.iter().map(|provider| provider.as_str())))
            .filter(workspace::Column::State.ne(StateKind::Destroyed.as_str()))
            .col_expr(workspace::Column::ServerId, Expr::value(self.server_id().as_uuid()));
        let taken = take.exec_with_returning(&transaction).await.doing(ACTION)?;
        let take = snapshot::Entity::update_many()
            .filter(snapshot::Column::ServerId.eq(dead.as_uuid()))
            .filter(snapshot::Column::Provider.is_in(providers.iter().map(|provider| provider.as_str())))
            .col_expr(snapshot::Column::ServerId, Expr::value(self.server_id().as_uuid()));
        take.exec(&transaction).await.doing(ACTION)?;
        let mut mcp_servers = 0;
        if providers.contains(&MCP_SERVERS_ON) {
            let take = mcp_server::Entity::update_many()
                .filter(mcp_server::Column::ServerId.eq(dead.as_uuid()))
                .col_expr(mcp_server::Column::ServerId, Expr::value(self.server_id().as_uuid()));
            mcp_servers = take.exec(&transaction).await.doing(ACTION)?.rows_affected;
        }
        transaction.commit().await.doing(ACTION)?;
        let workspaces = taken.into_iter().map(WorkspaceRow::try_from).collect::<Result<_, _>>()?;
        Ok(TakenOver { workspaces, mcp_servers })
    }
}

fn engines_json(engines: &Engines) -> JsonValue {
    let entries = engines.iter().map(|(provider, id)| (provider.as_str().to_owned(), id.as_str().into()));
    JsonValue::Object(entries.collect())
}

// === impl ServerRow ===

impl ServerRow {
    fn read(row: Model, now: DateTime<Utc>) -> Result<Self, StoreError> {
        let engines: BTreeMap<String, String> =
            row.engine_ids.map(|json| from_json("engine_ids", json)).transpose()?.unwrap_or_default();
        let engines = engines.into_iter().map(|(provider, id)| Ok((parse("engine_ids", &provider)?, id)));
        Ok(Self {
            id: row.id.into(),
            name: row.name,
            url: row.url,
            engines: engines.collect::<Result<_, StoreError>>()?,
            draining: row.draining,
            alive: row.lease_expires_at.is_some_and(|end| end > now),
            created_at: row.created_at,
        })
    }

    /// The name that people see: the server's own, or its id where it has none.
    pub fn title(&self) -> String {
        self.name.clone().unwrap_or_else(|| self.id.to_string())
    }
}
