//! Access tokens: who may call. Only a hash of the secret is kept.

use std::{fmt, str::FromStr};

use chrono::{DateTime, SubsecRound as _, Utc};
use sea_orm::{
    ActiveValue::Set,
    ColumnTrait as _, ConnectionTrait, EntityTrait as _, QueryFilter as _, QueryOrder as _, QuerySelect as _,
    UpdateMany,
    sea_query::{Expr, ExprTrait as _, Func},
};

use crate::{
    McpAllowList, ProjectId, Store, StoreError, TokenId,
    connection::Alone,
    entity::{token, token_changes},
    error::Doing as _,
    installation::now,
    words::{from_json, parse, storable, storable_json},
};

/// How many tokens one query looks at: databases bound the parameters of a statement.
const HASHES_AT_ONCE: usize = 1_000;

/// A permission that a token grants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scope {
    /// See everything of the project.
    AdminRead,
    /// Change everything of the project.
    AdminWrite,
    /// Use the project's hosted MCP servers.
    McpUse,
}

/// A word that names no scope.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no scope is called {0:?}; there are admin:read, admin:write and mcp:use")]
pub struct UnknownScope(String);

/// A token to make.
#[derive(Debug, Clone)]
pub struct NewToken {
    /// The project whose rows the token opens.
    pub project: ProjectId,
    /// A name, for people.
    pub name: String,
    /// The permissions that the token grants.
    pub scopes: Vec<Scope>,
    /// The hosted MCP servers that the token may use; `None` for all of the project's.
    pub mcp: Option<McpAllowList>,
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
    /// The permissions that the token grants.
    pub scopes: Vec<Scope>,
    /// The hosted MCP servers that the token may use; `None` for all of the project's.
    pub mcp: Option<McpAllowList>,
    /// The time at which the token was made.
    pub created_at: DateTime<Utc>,
    /// The time at which the secret was last replaced.
    pub rotated_at: Option<DateTime<Utc>>,
    /// The time at which the token stops working; `None` for never.
    pub expires_at: Option<DateTime<Utc>>,
    /// The time at which the token was revoked; a revoked token no longer works.
    pub revoked_at: Option<DateTime<Utc>>,
}

// === impl Scope ===

impl Scope {
    /// All scopes.
    pub const ALL: [Self; 3] = [Self::AdminRead, Self::AdminWrite, Self::McpUse];

    /// The scope's word in rows and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AdminRead => "admin:read",
            Self::AdminWrite => "admin:write",
            Self::McpUse => "mcp:use",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Scope {
    type Err = UnknownScope;

    fn from_str(text: &str) -> Result<Self, UnknownScope> {
        Self::ALL.into_iter().find(|scope| scope.as_str() == text).ok_or_else(|| UnknownScope(text.to_owned()))
    }
}

// === impl Token ===

impl Token {
    /// Whether the token opens anything at `now`.
    pub fn is_valid(&self, now: DateTime<Utc>) -> bool {
        self.revoked_at.is_none() && self.expires_at.is_none_or(|expiry| now < expiry)
    }
}

// === impl Store ===

impl Store {
    /// Makes a token.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails, also when the hash is there already.
    pub async fn tokens_create(&self, new: NewToken) -> Result<Token, StoreError> {
        insert(self.writer.connection(), new).await
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

    /// The tokens of a project, or of all, newest first, revoked ones too.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn tokens_list(&self, project: Option<ProjectId>) -> Result<Vec<Token>, StoreError> {
        let mut newest_first =
            token::Entity::find().order_by_desc(token::Column::CreatedAt).order_by_desc(token::Column::Id);
        if let Some(project) = project {
            newest_first = newest_first.filter(token::Column::ProjectId.eq(project.as_uuid()));
        }
        let rows = newest_first.all(self.reader.connection()).await.doing("list tokens")?;
        rows.into_iter().map(Token::try_from).collect()
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
        scopes: new.scopes,
        mcp: new.mcp,
        created_at: now(),
        rotated_at: None,
        expires_at: new.expires_at.map(|expiry| expiry.trunc_subsecs(6)),
        revoked_at: None,
    };
    let scopes = token.scopes.iter().map(|scope| scope.as_str()).collect::<Vec<_>>();
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
        mcp_allow_list: Set(token.mcp.clone().map(|list| storable_json(Vec::from(list).into()))),
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

impl TryFrom<token::Model> for Token {
    type Error = StoreError;

    fn try_from(row: token::Model) -> Result<Self, StoreError> {
        let scopes: Vec<String> = from_json("tokens.scopes", row.scopes)?;
        let scopes = scopes.iter().map(|scope| parse("tokens.scopes", scope)).collect::<Result<_, _>>()?;
        Ok(Self {
            id: row.id.into(),
            project: row.project_id.into(),
            name: row.name,
            scopes,
            mcp: row.mcp_allow_list.map(|list| from_json("tokens.mcp_allow_list", list)).transpose()?,
            created_at: row.created_at,
            rotated_at: row.rotated_at,
            expires_at: row.expires_at,
            revoked_at: row.revoked_at,
        })
    }
}
