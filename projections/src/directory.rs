//! The directory: where people are found by the beginning of what they are called, in an organization or among all users.
//!
//! It joins two read models, members and users, and is kept in the transactions that change their rows. A membership and
//! its user lie in different partitions, which other processes may be at, so each transaction locks a hash of its people
//! before it reads both sides of them. At every commit the directory is exactly what its two sides say.
//!
//! It belongs to the tables that serve. A copy of a read model leaves it alone, and it is filled anew after a swap.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use aggregates::membership::MembershipEvent;
use aggregates::user::UserEvent;
use aggregates::{Event, Recorded};
use serde_json::json;
use sqlx::{PgConnection, PgPool};

use crate::column;
use crate::read_model::purged;
use crate::tables::Difference;

/// The directory of all users, beside those of organizations.
pub const USERS: &str = "users";
/// The longest word, in characters; what is longer is found by its beginning.
const WORD_CHARACTERS_MAX: usize = 64;
/// How many words of a name count.
const WORDS_MAX: usize = 8;
/// How many people are written anew in one transaction.
const FILLED_TOGETHER: i64 = 500;
/// The first half of the advisory locks; the second is a hash.
const LOCKS: i32 = 0x7ed1;

/// A word as it is looked for: lower case, single spaces, at most so long.
pub fn folded(text: &str) -> String {
    let spaced = text.split_whitespace().collect::<Vec<_>>().join(" ");
    spaced.to_lowercase().chars().take(WORD_CHARACTERS_MAX).collect()
}

/// The words by which somebody is found, and which of them they are sorted by: the name, else the address, else nothing.
fn words(name: Option<&str>, email: Option<&str>) -> BTreeMap<String, bool> {
    let (name, email) = (name.unwrap_or_default(), email.map(folded).unwrap_or_default());
    let parts: Vec<&str> = name.split_whitespace().take(WORDS_MAX).collect();
    let mut words: BTreeMap<String, bool> =
        (0..parts.len()).map(|first| (folded(&parts[first..].join(" ")), false)).collect();
    let sorted_by = if parts.is_empty() { email.clone() } else { folded(&parts.join(" ")) };
    if !email.is_empty() {
        words.insert(email, false);
    }
    words.insert(sorted_by, true);
    words
}

/// Somebody in a directory.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
struct Entry {
    organization_id: String,
    entry: String,
    partition: i16,
    person: String,
}

/// What a user is called.
#[derive(Debug, sqlx::FromRow)]
struct Called {
    id: String,
    name: Option<String>,
    email: Option<String>,
    partition: i16,
}

/// A row, by its key: whether the entry is sorted by it, whose it is, and the partition.
type Rows = BTreeMap<(String, String, String), (bool, String, i16)>;

fn rows(entries: &[Entry], called: &HashMap<String, Called>) -> Rows {
    let mut rows = Rows::new();
    for Entry { organization_id, entry, partition, person } in entries {
        let called = called.get(person);
        let (name, email) = called.map_or((None, None), |c| (c.name.as_deref(), c.email.as_deref()));
        for (word, is_name) in words(name, email) {
            rows.insert((organization_id.clone(), word, entry.clone()), (is_name, person.clone(), *partition));
        }
    }
    rows
}

/// Keeps the directory after these events were shown, last in their transaction.
pub(crate) async fn keep<'a>(
    connection: &mut PgConnection,
    events: impl Iterator<Item = &'a Recorded> + Clone,
) -> Result<(), sqlx::Error> {
    let person = |recorded: &'a Recorded| match &recorded.event {
        Event::Membership(MembershipEvent::MemberJoined { user_id, .. }) if recorded.sequence == 1 => {
            Some(user_id.as_ref())
        }
        Event::User(
            UserEvent::UserRegistered { .. } | UserEvent::UserProfileChanged { .. } | UserEvent::UserErased { .. },
        ) => Some(recorded.stream.id()),
        _ => None,
    };
    let people: BTreeSet<&str> = events.clone().filter_map(person).collect();
    write(connection, &people.into_iter().collect::<Vec<_>>()).await?;
    let gone = purged(events);
    if !gone.is_empty() {
        let statement = "DELETE FROM directory.people WHERE organization_id = ANY($1)";
        sqlx::query(statement).bind(gone).execute(connection).await?;
    }
    Ok(())
}

/// Writes what these people are called now, wherever they are found.
async fn write(connection: &mut PgConnection, ids: &[&str]) -> Result<(), sqlx::Error> {
    if ids.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "SELECT pg_advisory_xact_lock($1, bucket)
         FROM (SELECT DISTINCT hashtext(id) & 63 AS bucket FROM unnest($2::text[]) AS p(id) ORDER BY bucket) b",
    )
    .bind(LOCKS)
    .bind(ids)
    .execute(&mut *connection)
    .await?;
    let (expected, found) = (expected(connection, ids).await?, found(connection, ids).await?);
    let wrong: Vec<_> =
        found.iter().filter(|(key, row)| expected.get(*key) != Some(*row)).map(|(key, _)| key).collect();
    if !wrong.is_empty() {
        sqlx::query(
            "DELETE FROM directory.people p USING unnest($1::text[], $2::text[], $3::text[]) AS w(organization_id, word, entry)
             WHERE p.organization_id = w.organization_id AND p.word = w.word AND p.entry = w.entry",
        )
        .bind(column!(wrong, |(organization, ..)| organization.as_str()))
        .bind(column!(wrong, |(_, word, _)| word.as_str()))
        .bind(column!(wrong, |(.., entry)| entry.as_str()))
        .execute(&mut *connection)
        .await?;
    }
    let missing = expected.into_iter().filter(|(key, row)| found.get(key) != Some(row)).collect();
    insert(connection, &missing).await
}

async fn called(connection: &mut PgConnection, ids: &[&str]) -> Result<HashMap<String, Called>, sqlx::Error> {
    let rows: Vec<Called> = sqlx::query_as("SELECT id, name, email, partition FROM users WHERE id = ANY($1)")
        .bind(ids)
        .fetch_all(connection)
        .await?;
    Ok(rows.into_iter().map(|called| (called.id.clone(), called)).collect())
}

/// The rows that these users should have.
async fn expected(connection: &mut PgConnection, ids: &[&str]) -> Result<Rows, sqlx::Error> {
    let called = called(connection, ids).await?;
    let mut entries: Vec<Entry> = sqlx::query_as(
        "SELECT organization_id, id AS entry, partition, user_id AS person FROM members WHERE user_id = ANY($1)",
    )
    .bind(ids)
    .fetch_all(connection)
    .await?;
    entries.extend(called.values().map(|user| Entry {
        organization_id: USERS.into(),
        entry: user.id.clone(),
        partition: user.partition,
        person: user.id.clone(),
    }));
    Ok(rows(&entries, &called))
}

/// The rows that these users have.
async fn found(connection: &mut PgConnection, ids: &[&str]) -> Result<Rows, sqlx::Error> {
    type Row = (String, String, String, bool, String, i16);
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT organization_id, word, entry, is_name, person, partition FROM directory.people WHERE person = ANY($1)",
    )
    .bind(ids)
    .fetch_all(connection)
    .await?;
    let keyed = |(organization, word, entry, is_name, person, partition): Row| {
        ((organization, word, entry), (is_name, person, partition))
    };
    Ok(rows.into_iter().map(keyed).collect())
}

async fn insert(connection: &mut PgConnection, rows: &Rows) -> Result<(), sqlx::Error> {
    if rows.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "INSERT INTO directory.people (organization_id, word, entry, partition, person, is_name)
         SELECT organization_id, word, entry, partition, person, is_name
         FROM unnest($1::text[], $2::text[], $3::text[], $4::smallint[], $5::text[], $6::boolean[])
              AS r(organization_id, word, entry, partition, person, is_name)
         ON CONFLICT DO NOTHING",
    )
    .bind(column!(rows, |((organization, ..), _)| organization.as_str()))
    .bind(column!(rows, |((_, word, _), _)| word.as_str()))
    .bind(column!(rows, |((.., entry), _)| entry.as_str()))
    .bind(column!(rows, |(_, (.., partition))| *partition))
    .bind(column!(rows, |(_, (_, person, _))| person.as_str()))
    .bind(column!(rows, |(_, (is_name, ..))| *is_name))
    .execute(connection)
    .await?;
    Ok(())
}

/// Everybody is to be written anew: rows that the directory was made from are others now.
pub(crate) async fn refill(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE directory.fill SET after = ''").execute(connection).await?;
    Ok(())
}

/// Writes some people anew where that is wanted; whether there are more. One process at a time.
pub(crate) async fn fill(pool: &PgPool) -> Result<bool, sqlx::Error> {
    let mut transaction = pool.begin().await?;
    let after: Option<String> =
        sqlx::query_scalar("SELECT after FROM directory.fill WHERE after IS NOT NULL FOR UPDATE SKIP LOCKED")
            .fetch_optional(&mut *transaction)
            .await?;
    let Some(after) = after else { return Ok(false) };
    let people = some_people(&mut transaction, &after).await?;
    let ids: Vec<&str> = people.iter().map(String::as_str).collect();
    write(&mut transaction, &ids).await?;
    sqlx::query("UPDATE directory.fill SET after = $1").bind(people.last()).execute(&mut *transaction).await?;
    transaction.commit().await?;
    Ok(!people.is_empty())
}

/// The next people by id that any side knows.
async fn some_people(connection: &mut PgConnection, after: &str) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT id FROM (
             (SELECT id FROM users WHERE id > $1 ORDER BY id LIMIT $2)
             UNION (SELECT DISTINCT user_id FROM members WHERE user_id > $1 ORDER BY user_id LIMIT $2)
             UNION (SELECT DISTINCT person FROM directory.people WHERE person > $1 ORDER BY person LIMIT $2)
         ) p ORDER BY id LIMIT $2",
    )
    .bind(after)
    .bind(FILLED_TOGETHER)
    .fetch_all(connection)
    .await
}

/// Where the directory is not what its two sides say in this snapshot, of all or of one organization; nothing is said
/// while it is being filled.
pub(crate) async fn difference(
    connection: &mut PgConnection,
    organization: Option<&str>,
) -> Result<Option<Difference>, sqlx::Error> {
    let filled: bool =
        sqlx::query_scalar("SELECT after IS NULL FROM directory.fill").fetch_one(&mut *connection).await?;
    if !filled {
        return Ok(None);
    }
    let mut differing: BTreeSet<(String, String, bool)> = BTreeSet::new();
    let mut after = String::new();
    loop {
        let people = some_people(connection, &after).await?;
        let Some(last) = people.last() else { break };
        after.clone_from(last);
        let ids: Vec<&str> = people.iter().map(String::as_str).collect();
        let (expected, found) = (expected(connection, &ids).await?, found(connection, &ids).await?);
        let one_sided = |rows: &Rows, other: &Rows, is_shown: bool| -> Vec<_> {
            let lone = rows.iter().filter(|(key, row)| other.get(*key) != Some(*row));
            lone.map(|((organization, _, entry), _)| (organization.clone(), entry.clone(), is_shown)).collect()
        };
        differing.extend(one_sided(&found, &expected, true));
        differing.extend(one_sided(&expected, &found, false));
    }
    differing.retain(|(of, ..)| organization.is_none_or(|only| only == of));
    let rows = differing.len() as i64;
    Ok(differing.pop_first().map(|(organization, entry, is_shown)| Difference {
        table: "directory.people".into(),
        rows,
        // Words are personal.
        key: json!([organization, entry]),
        shown: is_shown.then(|| json!({})),
        expected: (!is_shown).then(|| json!({})),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(name: Option<&str>, email: Option<&str>) -> Vec<(String, bool)> {
        words(name, email).into_iter().collect()
    }

    #[test]
    fn people_are_found_by_each_word_and_sorted_by_the_name() {
        let word = |text: &str, is_name| (text.to_owned(), is_name);
        assert_eq!(
            of(Some("Ada  King Lovelace"), Some("Ada@Example.com")),
            [
                word("ada king lovelace", true),
                word("ada@example.com", false),
                word("king lovelace", false),
                word("lovelace", false)
            ]
        );
        assert_eq!(of(None, Some("b@example.com")), [word("b@example.com", true)]);
        assert_eq!(of(None, None), [word("", true)]);
        assert_eq!(of(Some("b@example.com"), Some("b@example.com")), [word("b@example.com", true)]);
    }

    #[test]
    fn no_name_makes_more_words_or_longer_ones_than_the_bounds() {
        let long = "Ö".repeat(200);
        assert_eq!(of(Some(&long), None), [("ö".repeat(WORD_CHARACTERS_MAX), true)]);
        let many = (0..50).map(|number| format!("w{number}")).collect::<Vec<_>>().join(" ");
        assert_eq!(of(Some(&many), None).len(), WORDS_MAX);
    }
}
