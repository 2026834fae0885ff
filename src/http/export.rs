//! `GET /audit/{organization}/export`: the audit trail as a stream, to be verified, read or fed to other systems.

use std::sync::Arc;

use aggregates::descriptors;
use axum::Json;
use axum::body::Body;
use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::json;

use super::{Sender, Shared, caller, graphql::code, sender, unreadable};
use crate::audit::export::{Export, Format, Request as Wanted, sequence_at};
use crate::audit::proofs::NoProof;
use crate::audit::trail::Trail;
use crate::commands::{Caller, Principal};
use crate::graphql::Session;
use crate::log::AuditFilter;
use crate::requests::rate_limits::Meter;
use crate::requests::trail::Kind;

/// Up to which audit sequence an export goes: whoever was cut off passes it back as `to`.
/// The headers of an export's own, which pages of other origins may read too.
pub(super) const HEADERS: [HeaderName; 2] = [TO, NOT_SEALED];
const TO: HeaderName = HeaderName::from_static("tenancy-export-to");
/// Why later events are not sealed, and so not in it.
const NOT_SEALED: HeaderName = HeaderName::from_static("tenancy-export-not-sealed");
/// The most values that one condition may name.
const VALUES_MAX: usize = 100;

/// What is asked for. Lists are separated by commas.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Parameters {
    format: Option<String>,
    after: Option<u64>,
    since: Option<String>,
    to: Option<u64>,
    resume_after: Option<u64>,
    actions: Option<String>,
    actor_ids: Option<String>,
    subject_ids: Option<String>,
    recorded_since: Option<DateTime<Utc>>,
    recorded_until: Option<DateTime<Utc>>,
    correlation_id: Option<uuid::Uuid>,
}

/// A refusal, as JSON, with the seconds to wait where there were too many.
pub(super) struct Refusal(StatusCode, &'static str, String, Option<u64>);

impl Refusal {
    pub(super) fn bad(message: impl Into<String>) -> Self {
        Self(StatusCode::BAD_REQUEST, code::BAD_USER_INPUT, message.into(), None)
    }

    pub(super) fn of(code: &str, message: String) -> Self {
        match code {
            "UNAUTHENTICATED" => Self(StatusCode::UNAUTHORIZED, "UNAUTHENTICATED", message, None),
            "FORBIDDEN" => Self(StatusCode::FORBIDDEN, "FORBIDDEN", message, None),
            "NOT_FOUND" => Self(StatusCode::NOT_FOUND, "NOT_FOUND", message, None),
            "BAD_USER_INPUT" => Self::bad(message),
            "POSITION_UNKNOWN" => Self(StatusCode::BAD_REQUEST, "POSITION_UNKNOWN", message, None),
            "RATE_LIMITED" => Self(StatusCode::TOO_MANY_REQUESTS, "RATE_LIMITED", message, None),
            "UNAVAILABLE" => Self(StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE", message, None),
            _ => Self(
                StatusCode::INTERNAL_SERVER_ERROR,
                code::INTERNAL,
                super::graphql::INTERNAL_MESSAGE.to_owned(),
                None,
            ),
        }
    }
}

impl From<async_graphql::Error> for Refusal {
    fn from(error: async_graphql::Error) -> Self {
        error.into_server_error(Default::default()).into()
    }
}

impl From<async_graphql::ServerError> for Refusal {
    fn from(error: async_graphql::ServerError) -> Self {
        let code = error.extensions.as_ref().and_then(|extensions| extensions.get("code"));
        let code = if let Some(async_graphql::Value::String(code)) = code { code.as_str() } else { code::INTERNAL };
        Self::of(code, error.message)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = (self.0, Json(json!({"error": {"code": self.1, "message": self.2}}))).into_response();
        response.headers_mut().extend(self.3.map(|seconds| (header::RETRY_AFTER, HeaderValue::from(seconds))));
        response
    }
}

/// Answers with the export, or says why not.
pub async fn export(
    State(shared): State<Arc<Shared>>,
    Path(organization): Path<String>,
    parameters: Result<Query<Parameters>, axum::extract::rejection::QueryRejection>,
    request: Request,
) -> Response {
    let sender = sender(&request);
    let answered = async {
        let (reader, organization) = admit(&shared, &organization, sender, Kind::AuditExport).await?;
        let Query(parameters) = parameters.map_err(|error| Refusal::bad(unreadable(&error)))?;
        begin(&shared, organization, parameters, reader).await
    };
    answered.await.unwrap_or_else(IntoResponse::into_response)
}

/// Lets somebody in who may read the organization's audit trail; that they did is put on record as of this kind.
pub(super) async fn admit(
    shared: &Arc<Shared>,
    organization: &str,
    (headers, peer): Sender,
    kind: Kind,
) -> Result<(Reader, Trail), Refusal> {
    let meter = Arc::new(Meter::new(shared.rate_limits.clone()));
    let limited = |Refusal(status, code, message, _)| {
        let wait = (status == StatusCode::TOO_MANY_REQUESTS).then(|| meter.retry_after_seconds());
        Refusal(status, code, message, wait)
    };
    let caller = caller(shared, &headers, peer, &meter).await.map_err(|error| limited(error.into()))?;
    if let Some(caller) = &caller {
        meter.query(&caller.actor(false)).map_err(|refused| limited(super::rate_limited(refused).into()))?;
    }
    let reader = Reader { shared: shared.clone(), caller };
    let trail: Trail =
        organization.parse().map_err(|_| Refusal::bad("the address names no organization: give its id, org_…"))?;
    match reader.may(&trail, Some(kind)).await? {
        true => Ok((reader, trail)),
        false => Err(not_found()),
    }
}

pub(super) fn not_found() -> Refusal {
    Refusal::of("NOT_FOUND", "there is no such organization".to_owned())
}

fn list(text: Option<&str>) -> Result<Vec<String>, Refusal> {
    let values: Vec<String> = text
        .unwrap_or_default()
        .split(',')
        .map(str::trim)
        .filter(|value| !value.is_empty())
        .map(str::to_owned)
        .collect();
    if values.len() > VALUES_MAX {
        return Err(Refusal::bad(format!("a list has {} values; at most {VALUES_MAX} are taken", values.len())));
    }
    Ok(values)
}

fn filter(parameters: &Parameters) -> Result<AuditFilter, Refusal> {
    let named = |action: String| {
        let known = descriptors().find(|descriptor| descriptor.action() == action);
        known
            .map(|descriptor| descriptor.name.to_owned())
            .ok_or_else(|| Refusal::bad(format!("there is no action {action:?}")))
    };
    Ok(AuditFilter {
        event_types: list(parameters.actions.as_deref())?.into_iter().map(named).collect::<Result<_, _>>()?,
        actors: list(parameters.actor_ids.as_deref())?,
        subjects: list(parameters.subject_ids.as_deref())?,
        since: parameters.recorded_since,
        until: parameters.recorded_until,
        correlation: parameters.correlation_id,
    })
}

/// Somebody who exports, looked at again for every block.
pub(super) struct Reader {
    shared: Arc<Shared>,
    caller: Option<Caller>,
}

impl Reader {
    /// The principal, if authenticated.
    pub(super) fn principal(&self) -> Option<&Principal> {
        self.caller.as_ref().map(|caller| &caller.principal)
    }

    /// Whether they may, as the log has it now.
    pub(super) async fn may(&self, trail: &Trail, kind: Option<Kind>) -> Result<bool, Refusal> {
        let Some(caller) = &self.caller else {
            return Err(Refusal::of(code::UNAUTHENTICATED, "an export needs a token".to_owned()));
        };
        let pending = self.shared.access.is_pending(&caller.principal).await.map_err(crate::graphql::fault)?;
        let session = Session::new(self.shared.app.clone(), Some(caller.clone()), pending, "export".to_owned());
        session.caller()?;
        let Trail::Organization(organization) = trail else {
            // To anybody else it does not exist.
            if kind.is_some() && session.is_operator() {
                session.note_audit_read(None);
            }
            return Ok(session.is_operator());
        };
        match kind {
            Some(kind) => Ok(session.audits(organization, kind).await?),
            None => Ok(session
                .see(organization)
                .await?
                .is_some_and(|seen| seen.may(aggregates::roles::Permission::AuditRead))),
        }
    }
}

async fn begin(
    shared: &Arc<Shared>,
    trail: Trail,
    parameters: Parameters,
    reader: Reader,
) -> Result<Response, Refusal> {
    let format = parameters.format.as_deref().unwrap_or(Format::Ndjson.name());
    let format = Format::named(format)
        .ok_or_else(|| Refusal::bad(format!("there is no format {format:?}: ask for ndjson, csv or ocsf")))?;
    let log = shared.app.commands.log().clone();
    let no_proof = |error: NoProof| match error {
        NoProof::OutOfRange(reason) => Refusal::bad(reason),
        NoProof::Log(error) => crate::graphql::log_fault(error).into(),
    };
    let after = match (&parameters.since, parameters.after) {
        (Some(_), Some(_)) => return Err(Refusal::bad("give either since or after")),
        (Some(position), None) => {
            let position =
                position.parse().map_err(|error: crate::log::InvalidPosition| Refusal::bad(error.to_string()))?;
            let organization = trail.organization();
            let organization = organization
                .ok_or_else(|| Refusal::bad("of the installation's trail give `after`, and no position"))?;
            sequence_at(&log, organization, &position).await.map_err(no_proof)?
        }
        (None, after) => after.unwrap_or(0),
    };
    let wanted = Wanted {
        format,
        filter: filter(&parameters)?,
        after,
        to: parameters.to,
        witnessed: shared.app.commands.rules().witnessed,
        resume_after: parameters.resume_after,
    };
    let export = Export::begin(&log, &trail, wanted).await.map_err(no_proof)?.ok_or_else(not_found)?;
    let name = format!("attachment; filename=\"{trail}-{}.{}\"", export.to(), format.name());
    let (to, failure) = (export.to(), export.failure().map(HeaderValue::try_from));
    let in_flight = shared.in_flight.token();
    let lines = futures_util::stream::try_unfold((export, reader), move |(mut export, reader)| {
        let in_flight = in_flight.clone();
        async move {
            let _in_flight = in_flight;
            // A caller who was removed meanwhile gets no more; what they have ends without its end.
            let may = reader
                .may(export.trail(), None)
                .await
                .map_err(|Refusal(_, _, reason, _)| std::io::Error::other(reason));
            if !may? {
                return Err(std::io::Error::other("the caller may not read this audit trail any more"));
            }
            let lines = export.next().await.map_err(|error| {
                tracing::warn!(%error, "an export broke off");
                std::io::Error::other("the export broke off")
            })?;
            Ok(lines.map(|lines| (Bytes::from(lines), (export, reader))))
        }
    });
    let mut response = Response::new(Body::from_stream(lines));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(format.media_type()));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(TO, HeaderValue::from(to));
    headers.extend(failure.and_then(Result::ok).map(|failure| (NOT_SEALED, failure)));
    headers.extend(HeaderValue::try_from(name).ok().map(|name| (header::CONTENT_DISPOSITION, name)));
    Ok(response)
}
