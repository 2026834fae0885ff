//! API tokens.

use std::collections::HashMap;
use std::sync::Arc;

use aggregates::StreamId;
use aggregates::ids::{ApiTokenId, Id};
use aggregates::roles::Permission;
use async_graphql::connection::{Connection, EmptyFields};
use async_graphql::{Context, Error, ID, InputObject, Object};
use chrono::{DateTime, Utc};
use sqlx::{Postgres, QueryBuilder};

use super::batch::Load;
use super::connection::{BY_CREATION, Created, Opaque, PageArguments, cost};
use super::errors::{database_fault, log_fault};
use super::lists::{Holds, List, row};
use super::node::{Seeing, Shown};
use super::organization::Profile;
use super::payload::{Answer, payloads, run};
use super::scalars::{Time, int};
use super::session::{Session, id};
use super::user::Actor;
use crate::commands::Receipt;
use crate::commands::tokens as cases;
use crate::log::{Loaded, Log};

/// Which tokens: all of an organization's.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ApiTokenList;

impl List for ApiTokenList {
    type Row = ApiToken;
    type Node = ApiToken;
    const PREFIX: &'static str = ApiTokenId::PREFIX;
    const SELECT: &'static [&'static str] = ApiToken::SELECT;
    const READ: &'static [Permission] = &[Permission::TokenRead];
    type Place = Created;
    const BY: (&'static str, &'static str) = BY_CREATION;
    type Extra = EmptyFields;

    fn push(&self, _: &mut QueryBuilder<'_, Postgres>) {}

    fn holds(&self, _: &[Self::Row]) -> Holds {
        Holds::Unknown
    }

    fn place(row: &Self::Row) -> Created {
        Created { at: row.created_at, id: row.id.clone() }
    }
}

row! {
    /// By what a service acts in its organization. The secret is shown once, by `createApiToken`, and never again.
    pub struct ApiToken of "api_tokens" {
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
}

impl Shown for ApiToken {
    type Of = aggregates::ApiToken;

    fn new(id: ApiTokenId, loaded: &Loaded<aggregates::ApiToken>) -> Option<Self> {
        let state = &loaded.state;
        Some(Self {
            id: id.into(),
            name: state.name.clone(),
            hint: state.hint.clone(),
            permissions: state.permissions.clone(),
            created_by: state.created_by.to_string(),
            expires_at: state.expires_at,
            revoked_at: state.revoked_at,
            version: loaded.version.cast_signed(),
            created_at: state.created_at,
        })
    }

    async fn is_visible(session: &Session, id: &ApiTokenId, loaded: &Loaded<aggregates::ApiToken>) -> Seeing {
        let seen = session.see_owner(loaded.organization.as_ref(), id.as_ref()).await?;
        Ok(seen.is_some_and(|seen| seen.may(Permission::TokenRead)))
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
    /// The actor who created it.
    async fn created_by(&self, ctx: &Context<'_>) -> async_graphql::Result<Actor> {
        Actor::named(ctx, &self.created_by.parse().unwrap_or_default()).await
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
        int(self.version.unsigned_abs())
    }
}

/// What an organization shows of its API tokens.
#[derive(Clone)]
pub struct ApiTokens(pub Arc<Profile>);

#[Object]
impl ApiTokens {
    /// API tokens, by creation; also those that were revoked or have expired.
    #[graphql(complexity = "cost(first, last, child_complexity)")]
    async fn api_tokens(
        &self,
        ctx: &Context<'_>,
        first: Option<i32>,
        after: Option<String>,
        last: Option<i32>,
        before: Option<String>,
    ) -> Option<async_graphql::Result<Connection<Opaque, ApiToken>>> {
        Some(self.0.list(ctx, ApiTokenList, PageArguments { first, after, last, before }).await)
    }
}

/// Loads when tokens were used last.
pub struct TokenUseLoader {
    /// Where that is written.
    pub pool: crate::database::Connections,
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
        token: Option<ApiToken> = ApiToken::after,
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
    /// What it permits, never more than the caller may do; see `permissionCatalogue`. Without
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
