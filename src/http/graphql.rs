//! GraphQL over HTTP, as <https://graphql.github.io/graphql-over-http/draft/> says.
//!
//! A handler of our own, because what surrounds the engine decides who can be hurt: a mutation by GET can be started
//! by any link or image, a `text/plain` body needs no preflight from a foreign page, and a body without a limit is
//! memory for the asking. Every answer, also a refusal of the transport, is a GraphQL response, so that a client
//! needs one way of reading errors.
//!
//! The way of a request: method → `Accept` → `Content-Type` → body within its limit → JSON → size of the text →
//! parser → operation → size of the document → variables → execution in a task of its own → codes for the engine's
//! errors → answer.

mod document;
mod documents;
mod engine;
mod media;
mod receive;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use async_graphql::{
    Name, PathSegment, Pos, Request as GraphQLRequest, Response as GraphQLResponse, ServerError, Value, Variables,
    parser::{
        self,
        types::{
            BaseType, DocumentOperations, ExecutableDocument, Field, OperationDefinition, OperationType, Selection,
            Type,
        },
    },
};
use axum::{
    body::{Body, HttpBody},
    extract::Request,
    response::Response,
};
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use serde::Serialize;
use serde_json::{Map, Value as Json};
use tokio::{task::AbortHandle, time::timeout};

use super::limits::{Limits, VariableArguments, check_document, check_text};
use document::{check_one_subscription, check_repeated_mutations, check_variables, choose, parse};
use engine::{code_of, is_refused};
use media::Media;
use receive::{Source, from_members, only_subscription, receive, receive_subscription};

pub use documents::{Document, Documents};
pub use engine::{refuse_whole, settle};

/// The values of `extensions.code` that this module sets or gives a status of its own.
pub mod code {
    pub const GRAPHQL_PARSE_FAILED: &str = "GRAPHQL_PARSE_FAILED";
    pub const GRAPHQL_VALIDATION_FAILED: &str = "GRAPHQL_VALIDATION_FAILED";
    pub const QUERY_TOO_EXPENSIVE: &str = "QUERY_TOO_EXPENSIVE";
    pub const PERSISTED_QUERY_NOT_SUPPORTED: &str = "PERSISTED_QUERY_NOT_SUPPORTED";
    pub const PERSISTED_DOCUMENT_NOT_FOUND: &str = "PERSISTED_DOCUMENT_NOT_FOUND";
    pub const PERSISTED_DOCUMENT_REQUIRED: &str = "PERSISTED_DOCUMENT_REQUIRED";
    pub const BAD_USER_INPUT: &str = "BAD_USER_INPUT";
    pub const REQUEST_TIMEOUT: &str = "REQUEST_TIMEOUT";
    pub const UNAUTHENTICATED: &str = "UNAUTHENTICATED";
    pub const FORBIDDEN: &str = "FORBIDDEN";
    pub const RATE_LIMITED: &str = "RATE_LIMITED";
    pub const UNAVAILABLE: &str = "UNAVAILABLE";
    pub const INTERNAL: &str = "INTERNAL";
}

pub const INTERNAL_MESSAGE: &str =
    "Something failed inside the service; it is not the request's fault. Try again later.";

/// An error with a code, as every error of this service carries one.
pub fn coded(code: &str, message: impl Into<String>, at: Option<Pos>) -> ServerError {
    let mut error = ServerError::new(message, at);
    error.extensions.get_or_insert_default().set("code", code);
    error
}

/// What became of a request that was executed.
pub enum Executed {
    /// It was answered by the schema. An answer without errors is kept by this.
    Now(Box<GraphQLResponse>, Option<Keep>),
    /// The text of an answer that was kept.
    Kept(Bytes),
}

/// Takes the text of an answer.
pub type Keep = Box<dyn FnOnce(&Bytes) + Send>;

impl Executed {
    /// An answer that nobody keeps.
    pub fn now(response: GraphQLResponse) -> Self {
        Self::Now(Box::new(response), None)
    }
}

/// Answers one HTTP request. `execute` is handed a call that has passed every check; it adds what belongs to this
/// caller and runs the schema.
///
/// The execution gets a task of its own, so a panic in a resolver reaches nobody but its caller. When the client
/// disconnects, or the time is over, a query is dropped; a mutation runs to its end, since stopping it in the middle
/// would leave the caller knowing less, not the database doing less. Code that waits for open work before stopping
/// must therefore count it inside `execute`, not around `answer`.
///
/// An error without a code, and every one of code INTERNAL, leaves with its message replaced; `execute` is the place
/// to log the original.
///
/// A subscription of a client that takes server-sent events is handed to `stream`.
pub async fn answer<F, Fut, S, StreamFut>(request: Request, documents: &Documents, execute: F, stream: S) -> Response
where
    F: FnOnce(Call) -> Fut,
    Fut: Future<Output = Executed> + Send + 'static,
    S: FnOnce(Call) -> StreamFut,
    StreamFut: Future<Output = Response>,
{
    let streams = media::takes_events(request.headers());
    let media = Media::negotiate(request.headers());
    let refusals = media.as_ref().copied().unwrap_or(Media::Json);
    let media = match media {
        Err(fault) if !streams => return fault.into_response(Media::Json),
        media => media,
    };
    let limits = &documents.limits;
    let known = Known::of(&request);
    let call = match receive(request, documents, streams).await {
        Ok(call) if call.operation == OperationType::Subscription => return stream(call).await,
        Ok(call) => call,
        Err(fault) => return fault.into_response(refusals),
    };
    let media = match media {
        Ok(media) => media,
        Err(fault) => return fault.into_response(Media::Json),
    };
    let known = known.filter(|_| call.persisted);
    let (operation, inputs) = (call.operation, call.inputs());
    match run(execute(call), operation, limits).await {
        Ok(Executed::Kept(body)) => with_body(StatusCode::OK, media, body, known),
        Ok(Executed::Now(mut response, keep)) => {
            settle(&mut response, limits, &inputs);
            respond(*response, media, limits.answer_bytes_max, known, keep)
        }
        Err(fault) => fault.into_response(media),
    }
}

/// A subscription as it comes over HTTP, by GET or POST.
///
/// # Errors
/// The answer to what is none, or no request at all.
pub async fn subscription(request: Request, documents: &Documents) -> Result<Call, Response> {
    receive_subscription(request, documents).await.map_err(|fault| fault.into_response(Media::GraphQL))
}

/// A subscription as it comes in a message: the members of a request.
///
/// # Errors
/// What is wrong with it; nothing has been executed.
pub fn subscription_of(members: Map<String, Json>, documents: &Documents) -> Result<Call, ServerError> {
    let parameters = from_members(members).map_err(|fault| *fault.error)?;
    only_subscription(check(parameters, documents)?)
}

/// Answers a request that is refused before anything of it was looked at but its headers.
pub fn refuse(headers: &HeaderMap, error: ServerError) -> Response {
    Fault::from(error).into_response(Media::negotiate(headers).unwrap_or(Media::Json))
}

/// Answers a request whose headers contradict each other.
pub fn refuse_malformed(headers: &HeaderMap, message: String) -> Response {
    Fault::bad_request(message).into_response(Media::negotiate(headers).unwrap_or(Media::Json))
}

/// A request that may be executed.
pub struct Call {
    pub document: Arc<Document>,
    /// Whether it was named by its id.
    pub persisted: bool,
    pub operation: OperationType,
    pub operation_name: Option<String>,
    pub variables: Map<String, Json>,
    pub extensions: Map<String, Json>,
}

impl Call {
    /// What the schema executes.
    pub fn request(&self) -> GraphQLRequest {
        let variables = Variables::from_json(Json::Object(self.variables.clone()));
        let mut request = GraphQLRequest::new("").variables(variables);
        request.operation_name.clone_from(&self.operation_name);
        let extensions = self.extensions.clone().into_iter();
        request.extensions.0.extend(extensions.filter_map(|(name, value)| Some((name, Value::from_json(value).ok()?))));
        request.set_parsed_query(self.document.parsed.clone());
        request
    }

    /// What [`settle`] needs to know of it.
    pub fn inputs(&self) -> Inputs {
        match self.document.arguments.is_empty() {
            true => Inputs::default(),
            false => Inputs { document: Some(self.document.clone()), variables: self.variables.clone() },
        }
    }
}

/// What [`settle`] needs to tell bad variables from a bad document, and to show them.
#[derive(Clone, Default)]
pub struct Inputs {
    /// None where no argument uses a variable.
    document: Option<Arc<Document>>,
    variables: Map<String, Json>,
}

/// What a client sends, whatever the transport.
pub struct Parameters {
    pub source: Source,
    pub operation_name: Option<String>,
    pub variables: Map<String, Json>,
    pub extensions: Map<String, Json>,
}

/// Checks what does not depend on the transport: the document's size, grammar and chosen operation, and the
/// variables as far as the document alone tells.
///
/// # Errors
/// One error with its code; nothing has been executed.
pub fn check(parameters: Parameters, documents: &Documents) -> Result<Call, ServerError> {
    let Parameters { source, operation_name, variables, extensions } = parameters;
    let (document, persisted) = (documents.find(&source)?, matches!(source, Source::Id(_)));
    let chosen = choose(&document.parsed, operation_name.as_deref())?;
    check_repeated_mutations(&document.parsed, chosen)?;
    check_one_subscription(&document.parsed, chosen)?;
    check_variables(chosen, &variables)?;
    let operation = chosen.ty;
    Ok(Call { document, persisted, operation, operation_name, variables, extensions })
}

// ------------------------------------------------------------------------------------------------ refusing

/// A refusal before execution.
#[derive(Debug)]
struct Fault {
    /// `None`: the request was well formed as HTTP, so its media type decides (see [`Media::refusal`]).
    status: Option<StatusCode>,
    header: Option<(&'static str, &'static str)>,
    /// Boxed, as it travels through many results.
    error: Box<ServerError>,
}

impl Fault {
    fn new(status: StatusCode, code: &str, message: impl Into<String>) -> Self {
        Self { status: Some(status), header: None, error: Box::new(coded(code, message, None)) }
    }

    fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code::BAD_USER_INPUT, message)
    }

    fn with(mut self, name: &'static str, value: &'static str) -> Self {
        self.header = Some((name, value));
        self
    }

    fn into_response(self, media: Media) -> Response {
        // One error, which is short.
        let mut response = respond(GraphQLResponse::from_errors(vec![*self.error]), media, usize::MAX, None, None);
        if let Some(status) = self.status {
            *response.status_mut() = status;
        }
        if let Some((name, value)) = self.header {
            response.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        response
    }
}

impl From<ServerError> for Fault {
    fn from(error: ServerError) -> Self {
        Self { status: None, header: None, error: Box::new(error) }
    }
}

// ------------------------------------------------------------------------------------------------ executing

/// Drops an execution together with whoever waits for it.
struct AbortOnDrop(AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn run<Fut>(execution: Fut, operation: OperationType, limits: &Limits) -> Result<Executed, Fault>
where
    Fut: Future<Output = Executed> + Send + 'static,
{
    let mut task = tokio::spawn(execution);
    let _abort = (operation != OperationType::Mutation).then(|| AbortOnDrop(task.abort_handle()));
    match timeout(Duration::from_millis(limits.request_timeout_ms), &mut task).await {
        Ok(Ok(executed)) => Ok(executed),
        // A panic, or a runtime that is going down. Its text is for the log, where the panic hook has put it.
        Ok(Err(_)) => Err(Fault::new(StatusCode::INTERNAL_SERVER_ERROR, code::INTERNAL, INTERNAL_MESSAGE)),
        Err(_) => {
            let advice = match operation {
                OperationType::Mutation => {
                    "It still runs and may take effect: repeat it with the same idempotencyKey to learn its outcome."
                }
                OperationType::Query | OperationType::Subscription => {
                    "It was given up. Ask for less, or try again later."
                }
            };
            let message = format!(
                "The {operation} took longer than {} ms (request_timeout_ms). {advice}",
                limits.request_timeout_ms
            );
            // Not 408: browsers send a request again on that, also one that changes something.
            Err(Fault::new(StatusCode::GATEWAY_TIMEOUT, code::REQUEST_TIMEOUT, message))
        }
    }
}

// ------------------------------------------------------------------------------------------------ answering

/// The longest word that a message repeats, in bytes: a slug fits, a token does not.
const WORD_BYTES_MAX: usize = 64;
/// How much of a longer one is shown.
const WORD_BYTES_SHOWN: usize = 8;

/// Cuts long words: parser and engine repeat what they were given, and that may be a token in a wrong place.
fn without_tokens(message: &str) -> String {
    let of_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '/' | '+' | '=');
    let pieces = message.split_inclusive(|c: char| !of_word(c)).map(|piece| {
        let word = piece.trim_end_matches(|c: char| !of_word(c));
        match word.len() > WORD_BYTES_MAX {
            true => format!("{}…{}", &word[..WORD_BYTES_SHOWN], &piece[word.len()..]),
            false => piece.to_owned(),
        }
    });
    pieces.collect()
}

/// Writes an answer of a limited length.
struct Bounded {
    bytes: Vec<u8>,
    maximum: usize,
}

impl std::io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if bytes.len() > self.maximum - self.bytes.len() {
            return Err(std::io::ErrorKind::FileTooLarge.into());
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// What the sender of a GET has of its answer already: its entity tags (RFC 9110, section 13.1.2).
struct Known(Option<HeaderValue>);

impl Known {
    fn of(request: &Request) -> Option<Self> {
        let asks = matches!(*request.method(), Method::GET | Method::HEAD);
        asks.then(|| Self(request.headers().get(header::IF_NONE_MATCH).cloned()))
    }

    fn has(&self, tag: &str) -> bool {
        let tags = self.0.as_ref().and_then(|tags| tags.to_str().ok()).unwrap_or_default();
        let mut tags = tags.split(',').map(|known| known.trim().trim_start_matches("W/"));
        tags.any(|known| known == "*" || known == tag)
    }
}

fn respond(
    mut response: GraphQLResponse,
    media: Media,
    bytes_max: usize,
    known: Option<Known>,
    keep: Option<Keep>,
) -> Response {
    /// Errors first, for whoever reads it; no `data` at all where nothing was executed, as the specification wants.
    #[derive(Serialize)]
    struct Answer<'a> {
        #[serde(skip_serializing_if = "<[_]>::is_empty")]
        errors: &'a [ServerError],
        #[serde(skip_serializing_if = "Option::is_none")]
        data: Option<&'a async_graphql::Value>,
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        extensions: &'a BTreeMap<String, async_graphql::Value>,
    }

    for error in &mut response.errors {
        error.message = without_tokens(&error.message);
    }
    let refused = is_refused(&response);
    let status = if refused { status(&response.errors, media) } else { StatusCode::OK };
    let answer = Answer {
        errors: &response.errors,
        data: (!refused).then_some(&response.data),
        extensions: &response.extensions,
    };
    let mut written = Bounded { bytes: Vec::with_capacity(1024), maximum: bytes_max };
    let (status, body) = match serde_json::to_writer(&mut written, &answer) {
        Ok(()) => (status, written.bytes),
        Err(error) if error.is_io() => {
            let message = format!(
                "The answer would be longer than {bytes_max} bytes (limits.answer_bytes_max). What was asked for is done; \
                 ask for less of it, or in several requests."
            );
            let error = coded(code::QUERY_TOO_EXPENSIVE, message, None);
            return respond(GraphQLResponse::from_errors(vec![error]), media, usize::MAX, None, None);
        }
        // Only a scalar that serializes to no JSON could bring us here.
        Err(_) => (
            StatusCode::INTERNAL_SERVER_ERROR,
            br#"{"errors":[{"message":"The answer could not be written.","extensions":{"code":"INTERNAL"}}]}"#.to_vec(),
        ),
    };

    let body = Bytes::from(body);
    let faultless = response.errors.is_empty();
    if let Some(keep) = keep.filter(|_| faultless) {
        keep(&body);
    }
    let mut answer = with_body(status, media, body, known.filter(|_| faultless));
    answer.headers_mut().extend(response.http_headers);
    answer
}

/// With `known`, the client may keep the answer, and asks whether it is still so.
fn with_body(status: StatusCode, media: Media, body: Bytes, known: Option<Known>) -> Response {
    let tag = known.as_ref().map(|_| entity_tag(&body));
    let unchanged = known.zip(tag.as_ref()).is_some_and(|(known, tag)| known.has(tag));
    let (status, body) = if unchanged { (StatusCode::NOT_MODIFIED, Bytes::new()) } else { (status, body) };
    let mut answer = Response::new(Body::from(body));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, media.content_type());
    match tag.and_then(|tag| HeaderValue::try_from(tag).ok()) {
        Some(tag) => {
            headers.insert(header::ETAG, tag);
            headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
            headers.insert(header::VARY, HeaderValue::from_static("accept, authorization"));
        }
        None => {
            headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
            headers.insert(header::VARY, HeaderValue::from_static("accept"));
        }
    }
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if status == StatusCode::UNAUTHORIZED && !headers.contains_key(header::WWW_AUTHENTICATE) {
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    answer
}

fn entity_tag(body: &[u8]) -> String {
    use sha2::{Digest, Sha256};
    format!("\"{}\"", documents::hex(&Sha256::digest(body)[..16]))
}

/// The status of a request that was not executed. What is wrong with the document depends on the media type; what
/// proxies and monitors must see does not.
fn status(errors: &[ServerError], media: Media) -> StatusCode {
    match errors.first().and_then(code_of) {
        Some(code::UNAUTHENTICATED) => StatusCode::UNAUTHORIZED,
        Some(code::FORBIDDEN) => StatusCode::FORBIDDEN,
        Some(code::RATE_LIMITED) => StatusCode::TOO_MANY_REQUESTS,
        Some(code::UNAVAILABLE) => StatusCode::SERVICE_UNAVAILABLE,
        Some(code::REQUEST_TIMEOUT) => StatusCode::GATEWAY_TIMEOUT,
        Some(code::INTERNAL) => StatusCode::INTERNAL_SERVER_ERROR,
        _ => media.refusal(),
    }
}

#[cfg(test)]
mod tests;
