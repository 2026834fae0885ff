//! What is loaded for a whole level of a query at once: one statement a level, not one a parent.

use std::collections::HashMap;
use std::sync::Arc;

use aggregates::ids::{ApiTokenId, OrganizationId, UserId};
use aggregates::roles::{Permission, Permissions};
use aggregates::user::UserState;
use aggregates::{Organization, StreamId, User};
use async_graphql::Error;

use super::access_trail::AddressLoader;
use super::api_token::{TokenNameLoader, TokenUseLoader};
use super::batch::{Batcher, Load};
use super::delivery::{DeliveryLoader, EventLoader};
use super::errors::{database_fault, log_fault};
use super::kept::Reads;
use super::lists::{Established, Lists};
use super::session::App;
use super::user::UserRow;
use crate::commands::{Insider, Principal};
use crate::log::{Loaded, Log, NamedTally, scope};
use crate::requests::trail::SealedAddress;

/// All loaders of a request.
pub struct Loaders {
    /// Organizations and the caller's standing in them, as the log has them now.
    pub seen: Batcher<OrganizationId, SeenLoader>,
    /// Users, for names and addresses.
    pub users: Batcher<String, UserLoader>,
    /// Whether users are let in.
    pub states: Batcher<UserId, StateLoader>,
    /// What organizations use.
    pub tallies: Batcher<OrganizationId, TallyLoader>,
    /// Lists of organizations.
    pub lists: Lists,
    /// When API tokens were used last.
    pub token_uses: Batcher<String, TokenUseLoader>,
    /// How API tokens are called.
    pub token_names: Batcher<ApiTokenId, TokenNameLoader>,
    /// Webhook deliveries by their ids.
    pub deliveries: Batcher<String, DeliveryLoader>,
    /// Events by their ids.
    pub events: Batcher<String, EventLoader>,
    /// Addresses of the access trail.
    pub addresses: Batcher<SealedAddress, AddressLoader>,
}

impl Loaders {
    /// For a request of `principal`. Lists are of organizations that are `established` by then.
    pub fn new(app: &App, principal: Option<Principal>, established: &Arc<Established>, reads: &Arc<Reads>) -> Self {
        let log = app.commands.log().clone();
        let pool = log.pool().clone();
        Self {
            users: Batcher::new(UserLoader { log: log.clone() }),
            states: Batcher::new(StateLoader { log: log.clone() }),
            tallies: Batcher::new(TallyLoader { log: log.clone() }),
            addresses: Batcher::new(AddressLoader { log: log.clone() }),
            token_names: Batcher::new(TokenNameLoader { log: log.clone() }),
            seen: Batcher::new(SeenLoader { log: log.clone(), principal }),
            lists: Lists::new(log.readers().clone(), established.clone(), reads.clone()),
            token_uses: Batcher::new(TokenUseLoader { pool: pool.clone() }),
            deliveries: Batcher::new(DeliveryLoader { pool }),
            events: Batcher::new(EventLoader { log: log.clone() }),
        }
    }
}

/// An organization and how the caller stands in it.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Its id.
    pub id: OrganizationId,
    /// The organization.
    pub organization: Loaded<Organization>,
    /// Nothing for a caller who is not authenticated.
    insider: Option<Insider>,
    operator: bool,
}

impl Seen {
    /// Whether the caller may see the organization; a purged one only operators.
    pub fn visible(&self) -> bool {
        (self.operator && self.organization.state.exists) || self.as_insider()
    }

    fn as_insider(&self) -> bool {
        self.insider.as_ref().is_some_and(|insider| insider.sees(&self.organization.state))
    }

    /// Whether it is seen only because the caller operates the service.
    pub fn only_as_operator(&self) -> bool {
        self.operator && !self.as_insider()
    }

    /// Whether this may be read only because the caller operates the service.
    pub fn may_only_as_operator(&self, permission: Permission) -> bool {
        self.operator && !self.permissions().contains(permission)
    }

    /// What the caller may do as a member, or as a token.
    pub fn permissions(&self) -> Permissions {
        let permissions = |insider: &Insider| insider.permissions(&self.organization.state.roles);
        self.insider.as_ref().map(permissions).unwrap_or_default()
    }

    /// Whether the organization is deleted.
    pub fn is_deleted(&self) -> bool {
        self.organization.state.status.lifecycle == aggregates::status::Lifecycle::Deleted
    }

    /// Whether the caller owns the organization.
    pub fn is_owner(&self) -> bool {
        self.insider.as_ref().is_some_and(Insider::is_owner)
    }

    /// Whether the caller may read what needs this permission.
    pub fn may(&self, permission: Permission) -> bool {
        self.visible() && (self.operator || self.permissions().contains(permission))
    }
}

/// Loads organizations with the caller's standing.
pub struct SeenLoader {
    log: Arc<Log>,
    principal: Option<Principal>,
}

impl Load<OrganizationId> for SeenLoader {
    type Value = Seen;

    async fn load(&self, keys: &[OrganizationId]) -> Result<HashMap<OrganizationId, Seen>, Error> {
        let principal = self.principal.as_ref();
        let streams: Vec<StreamId> = keys
            .iter()
            .flat_map(|id| {
                let insider = principal.map(|principal| Insider::stream(principal, id));
                std::iter::once(StreamId::from(id.clone())).chain(insider)
            })
            .collect();
        let now = self.log.current(&streams).await.map_err(log_fault)?;
        let operator = principal.is_some_and(Principal::is_operator);
        let seen = keys.iter().map(|id| {
            let insider = principal.map(|principal| Insider::read(principal, id, &now));
            (id.clone(), Seen { id: id.clone(), organization: now.get::<Organization>(id), insider, operator })
        });
        Ok(seen.collect())
    }
}

/// Loads users.
pub struct UserLoader {
    log: Arc<Log>,
}

impl Load<String> for UserLoader {
    type Value = UserRow;

    /// From the read model; a user who is not in it yet, after a first call just now, from the log.
    async fn load(&self, keys: &[String]) -> Result<HashMap<String, UserRow>, Error> {
        let mut query = scope::begin("u.*", keys);
        query.push(" CROSS JOIN LATERAL (SELECT id, email, name FROM users WHERE id = wanted.id LIMIT 1) u");
        let rows: Vec<UserRow> = query.build_query_as().fetch_all(self.log.readers()).await.map_err(database_fault)?;
        let mut users: HashMap<String, UserRow> = rows.into_iter().map(|row| (row.id.clone(), row)).collect();
        let missing: Vec<UserId> =
            keys.iter().filter(|key| !users.contains_key(*key)).filter_map(|key| key.parse().ok()).collect();
        if !missing.is_empty() {
            let streams: Vec<StreamId> = missing.iter().cloned().map(StreamId::from).collect();
            let now = self.log.current(&streams).await.map_err(log_fault)?;
            for id in missing {
                let row = UserRow::new(&id, &now.get::<User>(&id).state);
                users.insert(row.id.clone(), row);
            }
        }
        Ok(users)
    }
}

/// Loads whether users are let in, as the log has it now.
pub struct StateLoader {
    log: Arc<Log>,
}

impl Load<UserId> for StateLoader {
    type Value = UserState;

    async fn load(&self, keys: &[UserId]) -> Result<HashMap<UserId, UserState>, Error> {
        let streams: Vec<StreamId> = keys.iter().cloned().map(StreamId::from).collect();
        let now = self.log.current(&streams).await.map_err(log_fault)?;
        Ok(keys.iter().map(|id| (id.clone(), now.get::<User>(id).state.state)).collect())
    }
}

/// Loads what organizations use, as commands are held against it.
pub struct TallyLoader {
    log: Arc<Log>,
}

impl Load<OrganizationId> for TallyLoader {
    type Value = Vec<NamedTally>;

    async fn load(&self, keys: &[OrganizationId]) -> Result<HashMap<OrganizationId, Vec<NamedTally>>, Error> {
        self.log.tallies(keys).await.map_err(log_fault)
    }
}
