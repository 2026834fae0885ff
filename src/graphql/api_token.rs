//! API tokens.

use std::collections::HashMap;
use std::sync::Arc;

use aggregates::StreamId;
use aggregates::ids::{ApiTokenId, Id};
use async_graphql::connection::Connection;
use async_graphql::{Context, Error, ID, InputObject, Object};
use chrono::{DateTime, Utc};
use sqlx::{FromRow, PgPool, Postgres, QueryBuilder};

use super::batch::Load;
use super::connection::{Created, Opaque, Slice};
use super::errors::{database_fault, log_fault};
use super::loaders::{ListFilter, Lists, Loaders};
use super::payload::{Answer, payloads, run};
use super::scalars::{Time, int};
use super::session::{Session, id};
use super::user::{Actor, connection};
use crate::commands::tokens as cases;
use crate::commands::{Entity, Receipt};
use crate::log::{Loaded, Log};

/// A token as the read model has it.
#[derive(Debug, Clone, FromRow)]
pub struct ApiTokenRow {
    id: String,
    name: String,
    hint: String,
    permissions: Vec<String>,
    created_by: String,
    expires_at: Option<DateTime<Utc>>,
    revoked_at: Option<DateTime<Utc>>,
    version: i64,
    created_at: DateTime<Utc>,
}

/// Which tokens: all of an organization's.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ApiTokenFilter;

impl ListFilter for ApiTokenFilter {
    type Row = ApiTokenRow;
    const PREFIX: &'static str = ApiTokenId::PREFIX;
    const SELECT: &'static str =
        "id, name, hint, permissions, created_by, expires_at, revoked_at, version, created_at FROM api_tokens";
    fn lists(loaders: &Loaders) -> &Lists<Self> {
        &loaders.api_tokens
    }

    fn push(&self, _: &mut QueryBuilder<'_, Postgres>) {}
}

/// By what a service acts in its organization. The secret is shown once, by `createApiToken`, and never again.
#[derive(Debug, Clone)]
pub struct ApiToken {
    id: String,
    name: String,
    hint: String,
    permissions: Vec<String>,
    created_by: aggregates::Actor,
    expires_at: Option<DateTime<Utc>>,
    revoked_at: Option<DateTime<Utc>>,
    version: u64,
    created_at: DateTime<Utc>,
}

impl From<ApiTokenRow> for ApiToken {
    fn from(row: ApiTokenRow) -> Self {
        Self {
            id: row.id,
            name: row.name,
            hint: row.hint,
            permissions: row.permissions,
            created_by: row.created_by.parse().unwrap_or_default(),
            expires_at: row.expires_at,
            revoked_at: row.revoked_at,
            version: row.version.unsigned_abs(),
            created_at: row.created_at,
        }
    }
}

impl ApiToken {
    /// From the log's side.
    pub fn new(id: &ApiTokenId, loaded: &Loaded<aggregates::ApiToken>) -> Self {
        let state = &loaded.state;
        Self {
            id: id.to_string(),
            name: state.name.clone(),
            hint: state.hint.clone(),
            permissions: state.permissions.clone(),
            created_by: state.created_by.clone(),
            expires_at: state.expires_at,
            revoked_at: state.revoked_at,
            version: loaded.version,
            created_at: state.created_at,
        }
    }

    /// A connection of rows.
    pub fn connection(slice: Slice<ApiTokenRow>) -> Connection<Opaque, Self> {
        connection(slice, |row| Created { at: row.created_at, id: row.id.clone() }, Self::from)
    }
}

/// A secret by which a service acts for its organization.
#[Object]
impl ApiToken {
    /// The id.
    pub async fn id(&self) -> ID {
        ID(self.id.clone())
    }
    /// For what it is.
    async fn name(&self) -> &str {
        &self.name
    }
    /// How the secret begins and ends, to recognise it by.
    async fn hint(&self) -> &str {
        &self.hint
    }
    /// What it permits.
    async fn permissions(&self) -> &[String] {
        &self.permissions
    }
    /// Who created it.
    async fn created_by(&self, ctx: &Context<'_>) -> async_graphql::Result<Actor> {
        Actor::named(ctx, &self.created_by).await
    }
    /// When it was created.
    async fn created_at(&self) -> Time {
        Time(self.created_at)
    }
    /// Until when it can be used; null is for ever.
    async fn expires_at(&self) -> Option<Time> {
        self.expires_at.map(Time)
    }
    /// When it was taken back.
    async fn revoked_at(&self) -> Option<Time> {
        self.revoked_at.map(Time)
    }
    /// When it was used last, to about a minute.
    async fn last_used_at(&self, ctx: &Context<'_>) -> Option<async_graphql::Result<Time>> {
        Session::of(ctx).loaders().token_uses.load_one(self.id.clone()).await.transpose().map(|at| at.map(Time))
    }
    /// How often it was changed.
    async fn version(&self) -> i32 {
        int(self.version)
    }
}

/// Loads when tokens were used last.
pub struct TokenUseLoader {
    /// Where that is written.
    pub pool: PgPool,
}

impl Load<String> for TokenUseLoader {
    type Value = DateTime<Utc>;

    async fn load(&self, keys: &[String]) -> Result<HashMap<String, DateTime<Utc>>, Error> {
        let rows = sqlx::query!("SELECT token_id, last_used_at FROM token_uses WHERE token_id = ANY($1)", keys)
            .fetch_all(&self.pool)
            .await
            .map_err(database_fault)?;
        Ok(rows.into_iter().map(|row| (row.token_id, row.last_used_at)).collect())
    }
}

/// Loads the names of tokens, as the log has them.
pub struct TokenNameLoader {
    /// The log.
    pub log: Arc<Log>,
}

impl Load<ApiTokenId> for TokenNameLoader {
    type Value = String;

    async fn load(&self, keys: &[ApiTokenId]) -> Result<HashMap<ApiTokenId, String>, Error> {
        let streams: Vec<StreamId> = keys.iter().cloned().map(StreamId::from).collect();
        let now = self.log.current(&streams).await.map_err(log_fault)?;
        Ok(keys.iter().map(|id| (id.clone(), now.get::<aggregates::ApiToken>(id).state.name.clone())).collect())
    }
}

payloads! {
    /// What became of a command on an API token.
    ApiTokenPayload {
        /// The token after the command.
        token: Option<ApiToken> = |receipt: &Receipt| receipt.entities.iter().find_map(|entity| match entity {
            Entity::ApiToken(id, loaded) => Some(ApiToken::new(id, loaded)),
            Entity::Organization(..)
            | Entity::Membership(..)
            | Entity::Invitation(..)
            | Entity::Project(..)
            | Entity::User(..)
            | Entity::WebhookEndpoint(..) => None,
        }),
        /// The secret of a new token, shown this once: send it as `Authorization: Bearer <secret>`.
        secret: Option<String> = |receipt: &Receipt| receipt.secret.clone(),
    }
}

/// A new API token.
#[derive(InputObject)]
pub struct CreateApiTokenInput {
    /// Of which organization.
    organization_id: ID,
    /// For what it is.
    name: String,
    /// What it permits, never more than the caller may do himself; see `permissionCatalogue`. Without
    /// `organization:read` it sees nothing.
    permissions: Vec<String>,
    /// Until when it can be used, at most ten years from now; null is for ever. A token creates none that outlives it.
    expires_at: Option<Time>,
    /// Why; operators have to say.
    reason: Option<String>,
    /// A repetition with the same key finds the first outcome, without the secret.
    idempotency_key: Option<String>,
}

/// A command on an API token.
#[derive(InputObject)]
pub struct ApiTokenCommandInput {
    /// Which token.
    token_id: ID,
    /// Why; operators have to say.
    reason: Option<String>,
    /// A repetition with the same key finds the first outcome.
    idempotency_key: Option<String>,
    /// The version that the token must have.
    expected_version: Option<i32>,
}

/// Commands on API tokens.
#[derive(Default)]
pub struct ApiTokenMutation;

#[Object]
impl ApiTokenMutation {
    /// Creates an API token; returns its secret once.
    async fn create_api_token(&self, ctx: &Context<'_>, input: CreateApiTokenInput) -> Answer<ApiTokenPayload> {
        let case = id("organizationId", &input.organization_id).map(|organization| cases::CreateApiToken {
            organization,
            name: input.name,
            permissions: input.permissions,
            expires_at: input.expires_at.map(|time| time.0),
            reason: input.reason,
        });
        run(ctx, input.idempotency_key, None, case).await
    }

    /// Takes an API token back; it is refused from the next request on, everywhere.
    async fn revoke_api_token(&self, ctx: &Context<'_>, input: ApiTokenCommandInput) -> Answer<ApiTokenPayload> {
        let case = id("tokenId", &input.token_id).map(|token| cases::RevokeApiToken { token, reason: input.reason });
        run(ctx, input.idempotency_key, input.expected_version, case).await
    }
}
