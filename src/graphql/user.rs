//! Users, actors, and the viewer.

use aggregates::ids::{Id, InvitationId, MembershipId, UserId};
use aggregates::personal::readable;
use async_graphql::connection::{Connection, EmptyFields};
use async_graphql::{Context, Error, ID, InputObject, Interface, Object, SimpleObject};
use projections::directory::{self, folded};
use sqlx::postgres::PgRow;
use sqlx::{FromRow, QueryBuilder};

use super::connection::{BY_CREATION, Called, Created, Opaque, Page, PageArguments, Slice, cost, push_page};
use super::errors::{database_fault, log_fault};
use super::invitation::{Invitation, InvitationList};
use super::lists::{List, connection, connection_of};
use super::membership::{MemberList, Membership, push_beginning};
use super::node::{Seeing, Shown};
use super::payload::{Answer, payloads, run};
use super::scalars::UserState;
use super::session::{Session, id};
use crate::commands::members::sees_user;
use crate::commands::users::{Act, ReviewUser};
use crate::commands::{Person, invitations};
use crate::log::{Loaded, scope};

/// A user as the read model has it.
#[derive(Debug, Clone, FromRow)]
pub struct UserRow {
    /// The id.
    pub id: String,
    /// The verified address.
    pub email: Option<String>,
    /// The name.
    pub name: Option<String>,
}

/// A user.
#[derive(Debug, Clone)]
pub struct User {
    id: UserId,
    /// What is known already; else it is loaded when it is asked for.
    row: Option<UserRow>,
}

impl UserRow {
    /// From the log's side.
    pub fn new(id: &UserId, user: &aggregates::User) -> Self {
        let text = |personal: &Option<aggregates::Personal>| readable(personal).map(str::to_owned);
        Self { id: id.to_string(), email: text(&user.email), name: text(&user.display_name) }
    }
}

impl User {
    /// The user of this id.
    pub fn of(id: UserId) -> Self {
        Self { id, row: None }
    }

    async fn row(&self, ctx: &Context<'_>) -> Result<Option<UserRow>, Error> {
        match &self.row {
            Some(row) => Ok(Some(row.clone())),
            None => Session::of(ctx).user_row(&self.id).await,
        }
    }
}

impl Shown for User {
    type Of = aggregates::User;

    fn new(id: UserId, loaded: &Loaded<aggregates::User>) -> Option<Self> {
        (loaded.version > 0).then(|| Self { row: Some(UserRow::new(&id, &loaded.state)), id })
    }

    async fn is_visible(session: &Session, id: &UserId, _: &Loaded<aggregates::User>) -> Seeing {
        let caller = &session.caller()?.principal;
        Ok(session.is_operator() || sees_user(session.log(), caller, id).await.map_err(log_fault)?)
    }
}

/// Somebody who has signed in, or was added by an operator.
#[Object]
impl User {
    /// The id.
    async fn id(&self) -> ID {
        ID(self.id.to_string())
    }
    /// The verified address; null where erased or not given.
    async fn email(&self, ctx: &Context<'_>) -> Option<async_graphql::Result<String>> {
        self.row(ctx).await.map(|row| row.and_then(|row| row.email)).transpose()
    }
    /// The name; null where erased or not given.
    async fn name(&self, ctx: &Context<'_>) -> Option<async_graphql::Result<String>> {
        self.row(ctx).await.map(|row| row.and_then(|row| row.name)).transpose()
    }
    /// Whether the user is let in; for operators and the user.
    async fn state(&self, ctx: &Context<'_>) -> Option<async_graphql::Result<UserState>> {
        let session = Session::of(ctx);
        if !session.is_operator() && !session.is(&self.id) {
            return None;
        }
        let known = session.loaders().states.load_one(self.id.clone()).await;
        known.map(|state| state.map(UserState::from)).transpose()
    }
}

/// The actor: a user, an operator, an API token or the service.
#[derive(Debug, Clone, Interface)]
#[graphql(field(name = "id", ty = "&ID"), field(name = "label", ty = "&String"))]
pub enum Actor {
    /// A user.
    User(UserActor),
    /// An operator.
    Operator(OperatorActor),
    /// An API token.
    Token(TokenActor),
    /// The service.
    System(SystemActor),
}

/// A user, in their own name.
#[derive(Debug, Clone, SimpleObject)]
pub struct UserActor {
    /// The user's id.
    id: ID,
    /// The user's name or address, as far as it is not erased.
    label: String,
}

/// A user who runs the service, as an operator.
#[derive(Debug, Clone, SimpleObject)]
pub struct OperatorActor {
    /// The operator's user id.
    id: ID,
    /// The operator's name or address.
    label: String,
}

/// An organization's API token.
#[derive(Debug, Clone, SimpleObject)]
pub struct TokenActor {
    /// The token's id.
    id: ID,
    /// The token's name.
    label: String,
}

/// The service itself.
#[derive(Debug, Clone, SimpleObject)]
pub struct SystemActor {
    /// Always "system".
    id: ID,
    /// Always "tenancy".
    label: String,
}

impl Actor {
    /// The actor with a label that people can read.
    pub async fn named(ctx: &Context<'_>, actor: &aggregates::Actor) -> Result<Self, Error> {
        use aggregates::Actor as A;
        let session = Session::of(ctx);
        match actor {
            A::User(user) | A::Operator(user) => {
                let row = session.user_row(user).await?;
                let label = row.and_then(|row| row.name.or(row.email)).unwrap_or_else(|| user.to_string());
                let id = ID(user.to_string());
                Ok(match actor {
                    A::Operator(_) => Self::Operator(OperatorActor { id, label }),
                    A::User(_) | A::Token(_) | A::System => Self::User(UserActor { id, label }),
                })
            }
            A::Token(token) => {
                let label = session.loaders().token_names.load_one(token.clone()).await?.unwrap_or_default();
                Ok(Self::Token(TokenActor { id: ID(token.to_string()), label }))
            }
            A::System => Ok(Self::System(SystemActor { id: ID("system".into()), label: "tenancy".into() })),
        }
    }
}

/// The caller.
pub struct Viewer(pub Person);

/// The user who calls, and what is theirs.
#[Object]
impl Viewer {
    /// The calling user, as the call itself has just made them known.
    async fn user(&self, ctx: &Context<'_>) -> async_graphql::Result<User> {
        let user = self.0.user.clone();
        let now = Session::of(ctx).log().current(&[user.clone().into()]).await.map_err(log_fault)?;
        let row = UserRow::new(&user, &now.get::<aggregates::User>(&user).state);
        Ok(User { id: user, row: Some(row) })
    }

    /// Whether the caller operates the service.
    async fn operator(&self) -> bool {
        self.0.operator
    }

    /// The caller's memberships, without deleted organizations.
    #[graphql(complexity = "cost(first, last, child_complexity)")]
    async fn memberships(
        &self,
        ctx: &Context<'_>,
        first: Option<i32>,
        after: Option<String>,
        last: Option<i32>,
        before: Option<String>,
    ) -> async_graphql::Result<Connection<Opaque, Membership>> {
        Session::of(ctx).caller()?;
        let page = PageArguments { first, after, last, before }
            .page_of(MembershipId::PREFIX, Session::of(ctx).page_size_max())?;
        let (user, own) = (self.0.user.as_ref(), "user_id = wanted.id AND state <> 'REMOVED'");
        let rows = named(ctx, user, ("members", &MemberList::SELECT.concat(), own), &page).await?;
        Ok(connection::<MemberList>(Slice::new(rows, &page), EmptyFields))
    }

    /// Pending invitations for the caller's verified address.
    #[graphql(complexity = "cost(first, last, child_complexity)")]
    async fn invitations(
        &self,
        ctx: &Context<'_>,
        first: Option<i32>,
        after: Option<String>,
        last: Option<i32>,
        before: Option<String>,
    ) -> async_graphql::Result<Connection<Opaque, Invitation>> {
        Session::of(ctx).caller()?;
        let page = PageArguments { first, after, last, before }
            .page_of(InvitationId::PREFIX, Session::of(ctx).page_size_max())?;
        let Some(email) = &self.0.email else { return Ok(Connection::new(false, false)) };
        let (address, own) = (
            invitations::email_claim(Session::of(ctx).log().keys(), email).0,
            "email_claim = wanted.id AND state = 'PENDING' AND expires_at > now()",
        );
        let rows = named(ctx, &address, ("invitations", &InvitationList::SELECT.concat(), own), &page).await?;
        Ok(connection::<InvitationList>(Slice::new(rows, &page), EmptyFields))
    }
}

/// A page of the rows that name the caller (or their address), without those of deleted organizations. The
/// organizations are in scope because these rows name them.
async fn named<R>(
    ctx: &Context<'_>,
    who: &str,
    (table, select, own): (&str, &str, &str),
    page: &Page<Created>,
) -> Result<Vec<R>, Error>
where
    R: for<'r> FromRow<'r, PgRow> + Send + Unpin,
{
    let mut query = scope::begin("r.*", &[who]);
    query.push(format!(
        " CROSS JOIN LATERAL (
              SELECT set_config('tenancy.scope', concat_ws(',', wanted.id, string_agg(organization_id, ',')), true) AS ids
              FROM {table} WHERE {own}
          ) widened
          CROSS JOIN LATERAL (
              SELECT {select} WHERE {own} AND widened.ids <> '' AND EXISTS (
                  SELECT FROM organizations o WHERE o.id = {table}.organization_id AND o.lifecycle <> 'DELETED'
              )"
    ));
    push_page(&mut query, BY_CREATION, page);
    query.push(") r");
    query.build_query_as().fetch_all(Session::of(ctx).log().readers()).await.map_err(database_fault)
}

/// A user who was found, and the word that led there.
#[derive(FromRow)]
struct Found {
    #[sqlx(flatten)]
    user: UserRow,
    word: String,
}

/// A page of the users whose name, a later word of it or address begins so, for operators.
pub async fn users(ctx: &Context<'_>, page: PageArguments, search: &str) -> Result<Connection<Opaque, User>, Error> {
    let page = page.page_of::<Called>(UserId::PREFIX, Session::of(ctx).page_size_max())?;
    let mut query = QueryBuilder::new(
        "SELECT users.id, email, name, word FROM directory.people JOIN users ON users.id = entry WHERE organization_id = ",
    );
    query.push_bind(directory::USERS);
    push_beginning(&mut query, Some(&folded(search)));
    push_page(&mut query, ("word", "entry"), &page);
    let rows: Vec<Found> =
        query.build_query_as().fetch_all(Session::of(ctx).log().operators()).await.map_err(database_fault)?;
    let place = |found: &Found| Called { name: found.word.clone(), id: found.user.id.clone() };
    Ok(connection_of(Slice::new(rows, &page), place, |found| User::from(found.user), EmptyFields))
}

impl From<UserRow> for User {
    fn from(row: UserRow) -> Self {
        Self { id: row.id.parse().unwrap_or_else(|_| UserId::from_uuid(uuid::Uuid::nil())), row: Some(row) }
    }
}

payloads! {
    /// What became of an operator's act on a user.
    UserPayload {
        /// The user.
        user: Option<User> = User::after,
    }
}

/// An operator's act on a user.
#[derive(InputObject)]
pub struct UserReviewInput {
    /// Which user.
    user_id: ID,
    /// Why; it stands in the audit trail.
    reason: String,
    /// A repetition with the same key finds the first outcome.
    idempotency_key: Option<String>,
    /// The version that the user must have.
    expected_version: Option<i32>,
}

/// Mutations of users.
#[derive(Default)]
pub struct UserMutation;

#[Object]
impl UserMutation {
    /// Operators: PENDING → ACTIVE.
    async fn approve_user(&self, ctx: &Context<'_>, input: UserReviewInput) -> Answer<UserPayload> {
        review(ctx, input, Act::Approve).await
    }

    /// Operators: → REVOKED; the user is refused everywhere, from the next request on.
    async fn revoke_user(&self, ctx: &Context<'_>, input: UserReviewInput) -> Answer<UserPayload> {
        review(ctx, input, Act::Revoke).await
    }

    /// Operators: REVOKED → ACTIVE.
    async fn reinstate_user(&self, ctx: &Context<'_>, input: UserReviewInput) -> Answer<UserPayload> {
        review(ctx, input, Act::Reinstate).await
    }
}

async fn review(ctx: &Context<'_>, input: UserReviewInput, act: Act) -> Answer<UserPayload> {
    let case = id("userId", &input.user_id).map(|user| ReviewUser { user, act, reason: input.reason });
    run(ctx, input.idempotency_key, input.expected_version, case).await
}

/// The user of a stored id; what is stored is a user's id.
pub fn user(id: &str) -> User {
    User::of(id.parse().unwrap_or_else(|_| UserId::from_uuid(uuid::Uuid::nil())))
}
