//! The admission of a new workspace, if there is room: the row that every create begins with.

use chrono::{SubsecRound as _, TimeDelta};
use emergent_provider::ContainerKind;
use emergent_types::WorkspaceId;
use sea_orm::{
    ActiveModelTrait,
    ActiveValue::{self, Set},
    ColumnTrait as _, ConnectionTrait, DatabaseTransaction, DbErr, EntityTrait, Iterable as _, QueryFilter as _,
    sea_query::{Asterisk, Expr, ExprTrait as _, Func, Query},
};
use uuid::Uuid;

use crate::{
    ProjectId, QuotaReached, QuotaUse, StartClaim, StateKind, Store, StoreError, WorkspaceRow,
    connection::Alone,
    entity::{
        idempotency_key, mcp_server,
        workspace::{self, Column},
    },
    error::Doing as _,
    model::row::new_values,
    names,
    quotas::{self, is_counted, over_quota},
    time::now,
};

/// The time for which an idempotency key stands for its first request.
const KEY_LIFE: TimeDelta = TimeDelta::hours(24);

/// A caller's assurance that two requests with the same key are one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyClaim {
    /// The caller's key.
    pub key: String,
    /// A hash of the whole request.
    pub request_hash: [u8; 32],
}

/// Whether a workspace was let in.
#[derive(Debug, Clone, PartialEq)]
pub enum Admission {
    /// The workspace was let in; its row says `creating`.
    Admitted(Box<WorkspaceRow>),
    /// The same request came before and made this one.
    Repeated(Box<WorkspaceRow>),
    /// Another request came before with the same key. Nothing was made.
    KeyTaken,
    /// There is no room. Nothing was made.
    Full,
    /// The project may not have that much more. Nothing was made.
    OverQuota(QuotaReached),
    /// This workspace of the project has the name already. Nothing was made.
    NameTaken(WorkspaceId),
}

// === impl Store ===

impl Store {
    /// Lets a workspace in if fewer than `limit` of its kind have places, and if its project's
    /// quotas have room.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails; nothing was made then.
    pub async fn admit(
        &self,
        row: WorkspaceRow,
        limit: u32,
        claim: Option<IdempotencyClaim>,
    ) -> Result<Admission, StoreError> {
        let transaction = self.writer.begin_alone(Alone::Places, "begin admitting a workspace").await?;
        if let Some(claim) = claim
            && let Some(earlier) = claim_key(&transaction, row.project, row.id.as_uuid(), &claim).await?
        {
            return earlier_request(&transaction, &claim, earlier).await;
        }
        if let Some(name) = &row.name
            && let Some(holder) = names::holder(&transaction, row.project, name).await?
        {
            return Ok(Admission::NameTaken(holder));
        }
        let row = to_admit(row);
        if !insert_if_room(&transaction, &row, limit).await? {
            // Dropping the transaction takes the key back, too.
            let wanted = QuotaUse::of_workspace(row.spec.kind, &row.spec.limits, true);
            let reached = over_quota(&transaction, row.project, &wanted).await?;
            return Ok(reached.map_or(Admission::Full, Admission::OverQuota));
        }
        transaction.commit().await.doing("admit a workspace")?;
        Ok(Admission::Admitted(Box::new(row)))
    }

    /// Lets a workspace that does not run be started, under the same limit. The place is given up by the state that
    /// is recorded next.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn claim_start(&self, id: WorkspaceId, limit: u32) -> Result<StartClaim, StoreError> {
        let Some(row) = self.workspaces_find(id).await? else { return Ok(StartClaim::Full) };
        let wanted = QuotaUse::of_workspace(row.spec.kind, &row.spec.limits, false);
        let place = has_place(row.spec.kind, limit, false).and(quotas::has_room(row.project, &wanted));
        let room = Column::Starting.eq(true).or(place);
        let transaction = self.writer.begin_alone(Alone::Places, "begin claiming a place").await?;
        let claim = workspace::Entity::update_many()
            .filter(Column::Id.eq(id.as_uuid()))
            .filter(Column::ServerId.eq(self.server_id().as_uuid()))
            .filter(Column::State.is_in([StateKind::Stopped.as_str(), StateKind::Error.as_str()]))
            .filter(room)
            .col_expr(Column::Starting, Expr::value(true))
            .exec(&transaction);
        let claimed = claim.await.doing("claim a place")?.rows_affected > 0;
        transaction.commit().await.doing("claim a place")?;
        if claimed {
            return Ok(StartClaim::Claimed);
        }
        let reached = over_quota(self.reader.connection(), row.project, &wanted).await?;
        Ok(reached.map_or(StartClaim::Full, StartClaim::OverQuota))
    }
}

/// Returns a row as the database will have it.
pub(crate) fn to_admit(row: WorkspaceRow) -> WorkspaceRow {
    WorkspaceRow { expires_at: row.expires_at.map(|expiry| expiry.trunc_subsecs(6)), ..row }
}

/// Whether fewer than `limit` places of a kind are taken, as a condition. It is part of the statement that takes a
/// place, and those who take places take turns ([`Alone::Places`]), so that no two can see the same last place.
///
/// Agent workspaces have places while they are active. The sandbox of a hosted MCP server has one until it is gone, and
/// needs none to be started again.
fn has_place(kind: ContainerKind, limit: u32, is_new: bool) -> Expr {
    match kind {
        ContainerKind::AgentWorkspace => workspaces(kind, is_counted()).lt(limit),
        ContainerKind::McpServer if is_new => has_mcp_place(limit),
        ContainerKind::McpServer => Expr::value(true),
    }
}

/// Whether there are fewer than `limit` hosted MCP servers on all servers and of all projects, as a condition.
pub(crate) fn has_mcp_place(limit: u32) -> Expr {
    let mut hosted = Query::select();
    hosted.expr(Func::count(Expr::col(Asterisk))).from(mcp_server::Entity);
    let hosted = Expr::SubQuery(None, Box::new(hosted.into()));
    let kept = Column::State.ne(StateKind::Destroyed.as_str());
    hosted.add(workspaces(ContainerKind::McpServer, kept)).lt(limit)
}

/// Returns the number of workspaces of a kind, as a subquery.
fn workspaces(kind: ContainerKind, which: Expr) -> Expr {
    let mut count = Query::select();
    count
        .expr(Func::count(Expr::col(Asterisk)))
        .from(workspace::Entity)
        .and_where(Column::Kind.eq(kind.as_str()))
        .and_where(which);
    Expr::SubQuery(None, Box::new(count.into()))
}

/// Records a workspace if there is room for it.
pub(crate) async fn insert_if_room(
    transaction: &DatabaseTransaction,
    row: &WorkspaceRow,
    limit: u32,
) -> Result<bool, StoreError> {
    let wanted = QuotaUse::of_workspace(row.spec.kind, &row.spec.limits, true);
    let room = has_place(row.spec.kind, limit, true).and(quotas::has_room(row.project, &wanted));
    insert_if(transaction, &new_values(row), room).await.doing("record a workspace")
}

/// Inserts a row if a condition holds; false where it does not. One statement, so that nothing can come between the
/// question and the row.
pub(crate) async fn insert_if<A: ActiveModelTrait>(
    transaction: &DatabaseTransaction,
    values: &A,
    condition: Expr,
) -> Result<bool, DbErr> {
    let mut source = Query::select();
    let mut columns = Vec::new();
    for column in <A::Entity as EntityTrait>::Column::iter() {
        if let ActiveValue::Set(value) = values.get(column) {
            columns.push(column);
            source.expr(Expr::value(value));
        }
    }
    source.and_where(condition);
    let mut insert = Query::insert();
    insert.into_table(A::Entity::default()).columns(columns);
    insert.select_from(source).map_err(|error| DbErr::Custom(error.to_string()))?;
    Ok(transaction.execute(&insert).await?.rows_affected() > 0)
}

/// Takes the key for this request, which makes `made`. `Some` is the request of the last 24 hours that has it already.
pub(crate) async fn claim_key(
    transaction: &DatabaseTransaction,
    project: ProjectId,
    made: Uuid,
    claim: &IdempotencyClaim,
) -> Result<Option<idempotency_key::Model>, StoreError> {
    use idempotency_key::{ActiveModel, Column, Entity};
    let expired = Column::CreatedAt.lt(now() - KEY_LIFE);
    Entity::delete_many().filter(expired).exec(transaction).await.doing("forget old idempotency keys")?;
    let key = (project.as_uuid(), claim.key.clone());
    let earlier = Entity::find_by_id(key).one(transaction).await.doing("look up an idempotency key")?;
    if earlier.is_none() {
        let row = ActiveModel {
            project_id: Set(project.as_uuid()),
            key: Set(claim.key.clone()),
            request_hash: Set(claim.request_hash.to_vec()),
            workspace_id: Set(made),
            created_at: Set(now()),
        };
        Entity::insert(row).exec_without_returning(transaction).await.doing("record an idempotency key")?;
    }
    Ok(earlier)
}

async fn earlier_request(
    transaction: &DatabaseTransaction,
    claim: &IdempotencyClaim,
    earlier: idempotency_key::Model,
) -> Result<Admission, StoreError> {
    if earlier.request_hash != claim.request_hash {
        return Ok(Admission::KeyTaken);
    }
    let row = workspace::Entity::find_by_id(earlier.workspace_id).one(transaction).await.doing("read a workspace")?;
    row.map_or(Ok(Admission::KeyTaken), |row| Ok(Admission::Repeated(Box::new(row.try_into()?))))
}
