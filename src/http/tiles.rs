//! `GET /audit/{organization}/log/…`: the audit trail's tree as <https://c2sp.org/tlog-tiles> has it, for who has a client
//! of that. Entries are not served so: an event may be longer than such an entry; exports have them.

use std::sync::Arc;

use axum::extract::{Path, Request, State};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};

use super::export::{Refusal, admit};
use super::{Shared, sender};
use crate::audit::proofs;
use crate::audit::seal::TILE;
use crate::requests::trail::Kind;

/// The highest level that a tree of 2^64 leaves has.
const LEVEL_MAX: i16 = 7;

fn not_found() -> Refusal {
    Refusal::of("NOT_FOUND", "there is no such checkpoint or tile".to_owned())
}

fn answer(bytes: impl IntoResponse, media_type: &'static str, caching: &'static str) -> Response {
    let fields = [(header::CONTENT_TYPE, media_type), (header::CACHE_CONTROL, caching)];
    (fields.map(|(name, value)| (name, HeaderValue::from_static(value))), bytes).into_response()
}

/// The newest checkpoint.
pub async fn checkpoint(
    State(shared): State<Arc<Shared>>,
    Path(organization): Path<String>,
    request: Request,
) -> Response {
    let sender = sender(&request);
    let found = async {
        let (_, organization) = admit(&shared, &organization, sender, Kind::AuditRead).await?;
        let head = proofs::head(shared.app.commands.log().pool(), organization.as_ref()).await;
        let head = head.map_err(crate::graphql::log_fault)?.ok_or_else(not_found)?;
        Ok::<_, Refusal>(answer(head.note, "text/plain; charset=utf-8", "no-store"))
    };
    found.await.unwrap_or_else(IntoResponse::into_response)
}

/// Hashes of one level: a whole tile, or the part that the newest tree has.
pub async fn tile(
    State(shared): State<Arc<Shared>>,
    Path((organization, path)): Path<(String, String)>,
    request: Request,
) -> Response {
    let sender = sender(&request);
    let found = async {
        let (_, organization) = admit(&shared, &organization, sender, Kind::AuditRead).await?;
        let (level, number, width) = parse(&path).ok_or_else(not_found)?;
        let pool = shared.app.commands.log().pool();
        let hashes = proofs::tile(pool, organization.as_ref(), level, number, width).await;
        let hashes = hashes.map_err(crate::graphql::log_fault)?.ok_or_else(not_found)?;
        // What is once in a tile never changes.
        Ok::<_, Refusal>(answer(hashes.concat(), "application/octet-stream", "private, max-age=31536000, immutable"))
    };
    found.await.unwrap_or_else(IntoResponse::into_response)
}

/// `LEVEL/NUMBER[.p/WIDTH]`, the number in groups of three digits of which all but the last begin with an x.
fn parse(path: &str) -> Option<(i16, u64, u64)> {
    let (level, rest) = path.split_once('/')?;
    let (number, width) = match rest.split_once(".p/") {
        Some((number, width)) => (number, decimal(width).filter(|width| (1..TILE).contains(width))?),
        None => (rest, TILE),
    };
    let level = i16::try_from(decimal(level)?).ok().filter(|level| *level <= LEVEL_MAX)?;
    let groups: Vec<&str> = number.split('/').collect();
    let (last, before) = groups.split_last()?;
    let mut digits = String::new();
    for group in before.iter().map(|group| group.strip_prefix('x')).chain([Some(*last)]) {
        digits.push_str(group.filter(|group| group.len() == 3 && group.bytes().all(|byte| byte.is_ascii_digit()))?);
    }
    let number: u64 = digits.parse().ok()?;
    // One name a tile: no groups of zeros before it.
    let canonical = before.len() == (number.checked_ilog10().unwrap_or(0) / 3) as usize;
    canonical.then_some((level, number, width)).filter(|_| number < u64::MAX / TILE)
}

fn decimal(text: &str) -> Option<u64> {
    text.parse().ok().filter(|number: &u64| number.to_string() == text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_are_named_as_the_specification_says() {
        assert_eq!(parse("0/000"), Some((0, 0, 256)));
        assert_eq!(parse("1/x001/x234/067"), Some((1, 1_234_067, 256)));
        assert_eq!(parse("2/017.p/112"), Some((2, 17, 112)));
        for bad in [
            "",
            "0",
            "0/1",
            "0/0001",
            "0/x001",
            "0/001/234",
            "0/x000/001",
            "00/001",
            "8/000",
            "0/000.p/0",
            "0/000.p/256",
            "-1/000",
            "0/+01",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
