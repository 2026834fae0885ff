//! Relay connections by key: ascending by creation, opaque cursors, one statement a level.

use async_graphql::{Error, connection::CursorType};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, Utc};
use sqlx::{Postgres, QueryBuilder};

use super::errors::bad_input;
use crate::log::Direction;

/// The largest page of any deployment.
pub const PAGE_MAX: i32 = 100;
/// The page when nothing else is said.
pub const PAGE_DEFAULT: i32 = 20;

/// The arguments of a connection.
#[derive(Debug, Clone, Default)]
pub struct PageArguments {
    /// So many from the beginning.
    pub first: Option<i32>,
    /// After this cursor.
    pub after: Option<String>,
    /// So many from the end.
    pub last: Option<i32>,
    /// Before this cursor.
    pub before: Option<String>,
}

/// A page that is wanted, by cursors of type `C`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Page<C> {
    /// From which end.
    pub forward: bool,
    /// How many at most.
    pub limit: usize,
    /// After this place.
    pub after: Option<C>,
    /// Before this place.
    pub before: Option<C>,
}

impl<C> Page<C> {
    /// The end that the page is taken from.
    pub fn direction(&self) -> Direction {
        if self.forward { Direction::First } else { Direction::Last }
    }
}

impl PageArguments {
    /// As [`Self::page`], for a list of things whose ids begin with `prefix`.
    pub fn page_of<P: Place>(self, prefix: &str, size_max: i32) -> Result<Page<P>, Error> {
        let page = self.page::<P>(size_max)?;
        let own = |cursor: &P| cursor.id().strip_prefix(prefix).is_some_and(|rest| rest.starts_with('_'));
        if [&page.after, &page.before].into_iter().flatten().all(own) {
            return Ok(page);
        }
        Err(bad_input("this cursor is of another list: pass one back exactly as the list gave it"))
    }

    /// Checks the arguments: one of `first` and `last`, from 1 to `size_max`; cursors that this list gave.
    pub fn page<C: Cursor>(self, size_max: i32) -> Result<Page<C>, Error> {
        let (forward, limit) = match (self.first, self.last) {
            (Some(_), Some(_)) => return Err(bad_input("first and last were both given: give one of them")),
            (None, Some(last)) => (false, count("last", last, size_max)?),
            (first, None) => (true, count("first", first.unwrap_or(PAGE_DEFAULT.min(size_max)), size_max)?),
        };
        let cursor = |name: &str, text: Option<String>| {
            let parse = |text: String| {
                let plain = URL_SAFE_NO_PAD.decode(&text).ok().and_then(|bytes| String::from_utf8(bytes).ok());
                plain.and_then(|plain| C::parse(&plain)).ok_or_else(|| {
                    bad_input(format!("{name} is no cursor of this list: pass one back exactly as the list gave it"))
                })
            };
            text.map(parse).transpose()
        };
        Ok(Page { forward, limit, after: cursor("after", self.after)?, before: cursor("before", self.before)? })
    }
}

fn count(name: &str, number: i32, size_max: i32) -> Result<usize, Error> {
    let valid = usize::try_from(number).ok().filter(|_| (1..=size_max).contains(&number));
    valid.ok_or_else(|| bad_input(format!("{name} is {number}: give 1 to {size_max}")))
}

/// What a page of these arguments may cost, for the engine's sum: every element costs what is asked of it.
pub fn cost(first: Option<i32>, last: Option<i32>, child: usize) -> usize {
    let size = first.or(last).unwrap_or(PAGE_DEFAULT).clamp(1, PAGE_MAX).unsigned_abs() as usize;
    size.saturating_mul(child).saturating_add(1)
}

/// A sort key that can be written into a cursor.
pub trait Cursor: Sized {
    /// The key in this text.
    fn parse(text: &str) -> Option<Self>;
    /// The key as text.
    fn text(&self) -> String;
}

/// The place of something in a list by creation.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Created {
    /// When it was created.
    pub at: DateTime<Utc>,
    /// Its id, for those of one moment.
    pub id: String,
}

impl Cursor for Created {
    fn parse(text: &str) -> Option<Self> {
        let (micros, id) = text.split_once(' ')?;
        let at = DateTime::from_timestamp_micros(micros.parse().ok()?)?;
        is_id(id).then(|| Self { at, id: id.to_owned() })
    }

    fn text(&self) -> String {
        format!("{} {}", self.at.timestamp_micros(), self.id)
    }
}

/// The place of something in a list by what it is called.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Called {
    /// As the list sorts it.
    pub name: String,
    /// Its id, for those of one name.
    pub id: String,
}

impl Cursor for Called {
    fn parse(text: &str) -> Option<Self> {
        let (name, id) = text.strip_prefix("called ")?.rsplit_once(' ')?;
        let fits = is_id(id) && !name.contains('\0');
        fits.then(|| Self { name: name.to_owned(), id: id.to_owned() })
    }

    fn text(&self) -> String {
        format!("called {} {}", self.name, self.id)
    }
}

/// By what a list is sorted: something, and the id for those that are alike in it.
pub trait Place: Cursor + Clone + std::fmt::Debug + Send + Sync + 'static {
    /// The id.
    fn id(&self) -> &str;
    /// Binds what is compared before the id.
    fn push_key(&self, query: &mut QueryBuilder<'_, Postgres>);
}

impl Place for Created {
    fn id(&self) -> &str {
        &self.id
    }
    fn push_key(&self, query: &mut QueryBuilder<'_, Postgres>) {
        query.push_bind(self.at);
    }
}

impl Place for Called {
    fn id(&self) -> &str {
        &self.id
    }
    fn push_key(&self, query: &mut QueryBuilder<'_, Postgres>) {
        query.push_bind(self.name.clone());
    }
}

fn is_id(text: &str) -> bool {
    text.len() <= 40 && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// A cursor as the engine takes it.
#[derive(Debug, Clone)]
pub struct Opaque(pub String);

impl Opaque {
    /// The opaque form of a key.
    pub fn of(cursor: &impl Cursor) -> Self {
        Self(URL_SAFE_NO_PAD.encode(cursor.text()))
    }
}

impl CursorType for Opaque {
    type Error = std::convert::Infallible;
    fn decode_cursor(text: &str) -> Result<Self, Self::Error> {
        Ok(Self(text.to_owned()))
    }
    fn encode_cursor(&self) -> String {
        self.0.clone()
    }
}

/// Adds the page's conditions, order and limit to a statement, in the order of these two columns. One row more than the
/// page is asked for, which tells whether there are more.
pub fn push_page<P: Place>(query: &mut QueryBuilder<'_, Postgres>, (key, id): (&str, &str), page: &Page<P>) {
    for (cursor, sign) in [(&page.after, ">"), (&page.before, "<")] {
        if let Some(cursor) = cursor {
            query.push(format!(" AND ({key}, {id}) {sign} ("));
            cursor.push_key(query);
            query.push(", ").push_bind(cursor.id().to_owned()).push(")");
        }
    }
    let order = if page.forward { "ASC" } else { "DESC" };
    query.push(format!(" ORDER BY {key} {order}, {id} {order} LIMIT ")).push_bind(page.limit as i64 + 1);
}

/// The columns of a list by creation.
pub const BY_CREATION: (&str, &str) = ("created_at", "id");

/// A page of rows, in ascending order, and whether there are more on either side.
#[derive(Debug, Clone)]
pub struct Slice<T> {
    /// The rows.
    pub rows: Vec<T>,
    /// Whether there are some before.
    pub has_previous: bool,
    /// Whether there are some after.
    pub has_next: bool,
}

impl<T> Slice<T> {
    /// From rows in the order of the page's direction, with one more than the page where there are more.
    pub fn new<C>(mut rows: Vec<T>, page: &Page<C>) -> Self {
        let more = rows.len() > page.limit;
        rows.truncate(page.limit);
        if page.forward {
            Self { rows, has_previous: page.after.is_some(), has_next: more }
        } else {
            rows.reverse();
            Self { rows, has_previous: more, has_next: page.before.is_some() }
        }
    }
}
