//! Access tokens: who may call. Only a hash of the secret is kept.

use std::str::FromStr;

use chrono::{DateTime, SubsecRound as _, Utc};
use sea_orm::{
    ActiveValue::Set,
    ColumnTrait as _, Condition, ConnectionTrait, EntityTrait as _, JsonValue, PaginatorTrait as _, QueryFilter as _,
    QueryOrder as _, QuerySelect as _, QueryTrait as _, UpdateMany,
    sea_query::{Expr, ExprTrait as _, Func},
};
use uuid::Uuid;

use crate::{
    Cursor, Grants, Page, PageRequest, ProjectId, Scope, Store, StoreError, TokenId, Tool,
    connection::Alone,
    entity::{project, token, token_changes},
    error::Doing as _,
    model::words::{from_json, parse, storable, storable_json},
    time::now,
};

/// The number of tokens of a project that may work at a time.
pub const MOST_TOKENS: u64 = 1_000;
/// The number of tokens of a project that are kept although they no longer work.
const MOST_ENDED: u64 = 1_000;
/// The number of those tokens that are forgotten with each token that is made.
const FORGOTTEN_AT_ONCE: u64 = 100;
/// The number of tokens that one query looks at: databases bound the parameters of a statement.
const HASHES_AT_ONCE: usize = 1_000;

/// The tokens to list. Every part narrows the list.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TokenFilter {
    /// Those of this project.
    pub project: Option<ProjectId>,
    /// Those of the project of this name.
    pub project_name: Option<String>,
    /// Those of this name.
    pub name: Option<String>,
}

/// The reason for which a token was not made.
#[derive(Debug, thiserror::Error)]
pub enum NewTokenError {
    /// The project has as many tokens as it may have.
    #[error(
        "the project has {MOST_TOKENS} tokens that work, and may have no more; revoke some with `emergent token revoke`, or \
         let them expire (`expires_in_seconds`)"
    )]
    TooMany,
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A token to make.
#[derive(Debug, Clone)]
pub struct NewToken {
    /// The project whose rows the token opens.
    pub project: ProjectId,
    /// A name, for people.
    pub name: String,
    /// The permissions of the holder, and the resources to which they are bound.
    pub grants: Grants,
    /// SHA-256 of the secret.
    pub hash: [u8; 32],
    /// The time at which the token stops working; `None` for never.
    pub expires_at: Option<DateTime<Utc>>,
}

/// A token, without its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// The token's id.
    pub id: TokenId,
    /// The project whose rows the token opens.
    pub project: ProjectId,
    /// A name, for people.
    pub name: String,
    /// The permissions of the holder, and the resources to which they are bound.
    pub grants: Grants,
    /// The time at which the token was made.
    pub created_at: DateTime<Utc>,
    /// The time at which the secret was last replaced.
    pub rotated_at: Option<DateTime<Utc>>,
    /// The time at which the token stops working; `None` for never.
    pub expires_at: Option<DateTime<Utc>>,
    /// The time at which the token was revoked; a revoked token no longer works.
    pub revoked_at: Option<DateTime<Utc>>,
}

// === impl Token ===

impl Token {
    /// Whether the token opens anything at `now`.
    pub fn is_valid(&self, now: DateTime<Utc>) -> bool {
        self.revoked_at.is_none() && self.expires_at.is_none_or(|expiry| now < expiry)
    }
}

// === impl TokenFilter ===

impl TokenFilter {
    fn condition(&self) -> Condition {
        let of_name = |name: &str| {
            let project = project::Entity::find().select_only().column(project::Column::Id);
            project.filter(project::Column::Name.eq(name)).into_query()
        };
        Condition::all()
            .add_option(self.project.map(|id| token::Column::ProjectId.eq(id.as_uuid())))
            .add_option(self.project_name.as_deref().map(|name| token::Column::ProjectId.in_subquery(of_name(name))))
            .add_option(self.name.as_deref().map(|name| token::Column::Name.eq(name)))
    }
}

// === impl Store ===

impl Store {
    /// Makes a token, if the project may have another one. Of those that work no longer, the oldest are forgotten where
    /// there are many.
    ///
    /// # Errors
    /// [`NewTokenError`] when the project has too many, or the database fails, also when the hash is there already.
    pub async fn tokens_create(&self, new: NewToken) -> Result<Token, NewTokenError> {
        let transaction = self.writer.begin_alone(Alone::Places, "begin recording a token").await?;
        let (now, of_project) = (now(), token::Column::ProjectId.eq(new.project.as_uuid()));
        let ended = token::Column::RevokedAt.is_not_null().or(token::Column::ExpiresAt.lte(now));
        let has_none = token::Column::ExpiresAt.is_null();
        let works = token::Column::RevokedAt.is_null().and(has_none.or(token::Column::ExpiresAt.gt(now)));
        let working = token::Entity::find().filter(of_project.clone()).filter(works);
        if working.count(&transaction).await.doing("count tokens")? >= MOST_TOKENS {
            return Err(NewTokenError::TooMany);
        }
        let newest_first =
            token::Entity::find().select_only().column(token::Column::Id).filter(of_project).filter(ended);
        let newest_first = newest_first.order_by_desc(token::Column::CreatedAt).order_by_desc(token::Column::Id);
        let beyond = newest_first.offset(MOST_ENDED).limit(FORGOTTEN_AT_ONCE).into_tuple::<Uuid>();
        let beyond = beyond.all(&transaction).await.doing("look for ended tokens")?;
        if !beyond.is_empty() {
            let forget = token::Entity::delete_many().filter(token::Column::Id.is_in(beyond));
            forget.exec(&transaction).await.doing("forget ended tokens")?;
        }
        let token = insert(&transaction, new).await?;
        transaction.commit().await.doing("record a token")?;
        Ok(token)
    }

    /// Makes the first token there ever is. `None`: there has been one, and nothing was made. Of servers that ask at
    /// once, one makes it.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn tokens_create_first(&self, new: NewToken) -> Result<Option<Token>, StoreError> {
        let transaction = self.writer.begin_alone(Alone::Installation, "begin recording the first token").await?;
        if token::Entity::find().one(&transaction).await.doing("look for tokens")?.is_some() {
            return Ok(None);
        }
        let token = insert(&transaction, new).await?;
        transaction.commit().await.doing("record the first token")?;
        Ok(Some(token))
    }

    /// A page of tokens, newest first, revoked ones too. `page.limit` is taken as it is.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn tokens_list(&self, filter: &TokenFilter, page: PageRequest) -> Result<Page<Token>, StoreError> {
        let mut select = token::Entity::find().filter(filter.condition());
        if let Some(Cursor { created_at, id }) = page.cursor {
            let same_instant = token::Column::CreatedAt.eq(created_at).and(token::Column::Id.lt(id));
            select = select.filter(token::Column::CreatedAt.lt(created_at).or(same_instant));
        }
        let newest_first = select.order_by_desc(token::Column::CreatedAt).order_by_desc(token::Column::Id);
        let rows = newest_first.limit(u64::from(page.limit) + 1).all(self.reader.connection()).await;
        let rows = rows.doing("list tokens")?.into_iter().map(Token::try_from).collect::<Result<Vec<_>, _>>()?;
        Ok(Page::cut(rows, page.limit, |token| Cursor { created_at: token.created_at, id: token.id.as_uuid() }))
    }

    /// Returns the token with this id, of any project.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn tokens_get(&self, id: TokenId) -> Result<Option<Token>, StoreError> {
        let row = token::Entity::find_by_id(id.as_uuid()).one(self.reader.connection()).await.doing("find a token")?;
        row.map(Token::try_from).transpose()
    }

    /// Revokes a token for good; revoking a revoked one changes nothing. `None`: the project has no such token.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn tokens_revoke(&self, project: ProjectId, id: TokenId) -> Result<Option<Token>, StoreError> {
        let first_revocation = Func::coalesce([Expr::col(token::Column::RevokedAt), Expr::value(now())]);
        let revoke = one(project, id).col_expr(token::Column::RevokedAt, first_revocation.into());
        self.change_token(revoke, "revoke a token").await
    }

    /// Gives a token another secret; the old one stops working. `None`: the project has no such token, or it is
    /// revoked.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn tokens_rotate(
        &self,
        project: ProjectId,
        id: TokenId,
        hash: [u8; 32],
    ) -> Result<Option<Token>, StoreError> {
        let rotate = one(project, id)
            .filter(token::Column::RevokedAt.is_null())
            .col_expr(token::Column::Hash, Expr::value(hash.to_vec()))
            .col_expr(token::Column::RotatedAt, Expr::value(now()));
        self.change_token(rotate, "rotate a token").await
    }

    /// The token with this hash, whether it is valid or not.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn tokens_find_by_hash(&self, hash: &[u8; 32]) -> Result<Option<Token>, StoreError> {
        let by_hash = token::Entity::find().filter(token::Column::Hash.eq(hash.to_vec()));
        let row = by_hash.one(self.reader.connection()).await.doing("find a token")?;
        row.map(Token::try_from).transpose()
    }

    /// Returns those of the hashes whose tokens are valid at `now`.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn tokens_valid(&self, hashes: &[[u8; 32]], now: DateTime<Utc>) -> Result<Vec<[u8; 32]>, StoreError> {
        let mut valid = Vec::with_capacity(hashes.len());
        for hashes in hashes.chunks(HASHES_AT_ONCE) {
            let of_these = token::Entity::find()
                .select_only()
                .column(token::Column::Hash)
                .filter(token::Column::Hash.is_in(hashes.iter().map(|hash| hash.to_vec())))
                .filter(token::Column::RevokedAt.is_null())
                .filter(token::Column::ExpiresAt.is_null().or(token::Column::ExpiresAt.gt(now)))
                .into_tuple::<Vec<u8>>();
            let found = of_these.all(self.reader.connection()).await.doing("look at tokens")?;
            valid.extend(found.into_iter().filter_map(|hash| <[u8; 32]>::try_from(hash).ok()));
        }
        Ok(valid)
    }

    /// Returns the number of revocations and rotations. While it is the same, valid tokens stay so until they expire.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn tokens_changes(&self) -> Result<i64, StoreError> {
        let row = token_changes::Entity::find().one(self.reader.connection()).await.doing("look for changed tokens")?;
        Ok(row.map_or(0, |row| row.count))
    }

    /// Whether there has ever been a token; decides if a first one is made at start.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn tokens_any(&self) -> Result<bool, StoreError> {
        let any = token::Entity::find().one(self.reader.connection()).await.doing("look for tokens")?;
        Ok(any.is_some())
    }

    /// Changes a token, and counts the change with it.
    async fn change_token(
        &self,
        change: UpdateMany<token::Entity>,
        action: &'static str,
    ) -> Result<Option<Token>, StoreError> {
        let transaction = self.writer.begin(action).await?;
        let changed = change.exec_with_returning(&transaction).await.doing(action)?;
        let next = Expr::col(token_changes::Column::Count).add(1);
        let count = token_changes::Entity::update_many().col_expr(token_changes::Column::Count, next);
        count.exec(&transaction).await.doing(action)?;
        transaction.commit().await.doing(action)?;
        changed.into_iter().next().map(Token::try_from).transpose()
    }
}

async fn insert(connection: &impl ConnectionTrait, new: NewToken) -> Result<Token, StoreError> {
    let token = Token {
        id: TokenId::generate(),
        project: new.project,
        name: storable(&new.name),
        grants: new.grants,
        created_at: now(),
        rotated_at: None,
        expires_at: new.expires_at.map(|expiry| expiry.trunc_subsecs(6)),
        revoked_at: None,
    };
    let Grants { scopes, is_administrator, is_operator, workspace, tools, mcp } = token.grants.clone();
    let scopes = scopes.into_iter().map(Scope::as_str).collect::<Vec<_>>();
    let tools = tools.map(|tools| tools.into_iter().map(Tool::as_str).collect::<Vec<_>>());
    let row = token::ActiveModel {
        id: Set(token.id.as_uuid()),
        project_id: Set(token.project.as_uuid()),
        name: Set(token.name.clone()),
        scopes: Set(scopes.into()),
        hash: Set(new.hash.to_vec()),
        created_at: Set(token.created_at),
        rotated_at: Set(None),
        expires_at: Set(token.expires_at),
        revoked_at: Set(None),
        mcp_allow_list: Set(mcp.map(|list| storable_json(Vec::from(list).into()))),
        is_administrator: Set(is_administrator),
        is_operator: Set(is_operator),
        workspace_id: Set(workspace.map(|id| id.as_uuid())),
        tools: Set(tools.map(Into::into)),
    };
    let insert = token::Entity::insert(row).exec_without_returning(connection);
    insert.await.doing("record a token")?;
    Ok(token)
}

fn one(project: ProjectId, id: TokenId) -> UpdateMany<token::Entity> {
    token::Entity::update_many()
        .filter(token::Column::Id.eq(id.as_uuid()))
        .filter(token::Column::ProjectId.eq(project.as_uuid()))
}

/// Reads a column that has a list of words.
fn words<T: FromStr, L: FromIterator<T>>(column: &'static str, list: JsonValue) -> Result<L, StoreError> {
    let list: Vec<String> = from_json(column, list)?;
    list.iter().map(|word| parse(column, word)).collect()
}

impl TryFrom<token::Model> for Token {
    type Error = StoreError;

    fn try_from(row: token::Model) -> Result<Self, StoreError> {
        let grants = Grants {
            scopes: words("tokens.scopes", row.scopes)?,
            is_administrator: row.is_administrator,
            is_operator: row.is_operator,
            workspace: row.workspace_id.map(Into::into),
            tools: row.tools.map(|tools| words("tokens.tools", tools)).transpose()?,
            mcp: row.mcp_allow_list.map(|list| from_json("tokens.mcp_allow_list", list)).transpose()?,
        };
        Ok(Self {
            id: row.id.into(),
            project: row.project_id.into(),
            name: row.name,
            grants,
            created_at: row.created_at,
            rotated_at: row.rotated_at,
            expires_at: row.expires_at,
            revoked_at: row.revoked_at,
        })
    }
}
