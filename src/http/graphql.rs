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

use std::{
    collections::{BTreeMap, HashSet},
    future::poll_fn,
    pin::Pin,
    time::Duration,
};

use async_graphql::{
    Name, Pos, Request as GraphQLRequest, Response as GraphQLResponse, ServerError, Value, Variables,
    parser::{
        self,
        types::{
            BaseType, DocumentOperations, ExecutableDocument, OperationDefinition, OperationType, Selection, Type,
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

/// The values of `extensions.code` that this module sets or gives a status of its own.
pub mod code {
    pub const GRAPHQL_PARSE_FAILED: &str = "GRAPHQL_PARSE_FAILED";
    pub const GRAPHQL_VALIDATION_FAILED: &str = "GRAPHQL_VALIDATION_FAILED";
    pub const QUERY_TOO_EXPENSIVE: &str = "QUERY_TOO_EXPENSIVE";
    pub const BAD_USER_INPUT: &str = "BAD_USER_INPUT";
    pub const REQUEST_TIMEOUT: &str = "REQUEST_TIMEOUT";
    pub const UNAUTHENTICATED: &str = "UNAUTHENTICATED";
    pub const FORBIDDEN: &str = "FORBIDDEN";
    pub const RATE_LIMITED: &str = "RATE_LIMITED";
    pub const UNAVAILABLE: &str = "UNAVAILABLE";
    pub const INTERNAL: &str = "INTERNAL";
}

const INTERNAL_MESSAGE: &str = "Something failed inside the service; it is not the request's fault. Try again later.";

/// An error with a code, as every error of this service carries one.
pub fn coded(code: &str, message: impl Into<String>, at: Option<Pos>) -> ServerError {
    let mut error = ServerError::new(message, at);
    error.extensions.get_or_insert_default().set("code", code);
    error
}

/// Answers one HTTP request. `execute` is handed a request that has passed every check and carries its parsed
/// document; it adds what belongs to this caller and runs the schema.
///
/// The execution gets a task of its own, so a panic in a resolver reaches nobody but its caller. When the client
/// disconnects, or the time is over, a query is dropped; a mutation runs to its end, since stopping it in the middle
/// would leave the caller knowing less, not the database doing less. Whoever waits for open work before stopping
/// must therefore count it inside `execute`, not around `answer`.
///
/// An error without a code, and every one of code INTERNAL, leaves with its message replaced; `execute` is the place
/// to log the original.
pub async fn answer<F, Fut>(request: Request, limits: &Limits, execute: F) -> Response
where
    F: FnOnce(GraphQLRequest) -> Fut,
    Fut: Future<Output = GraphQLResponse> + Send + 'static,
{
    let media = match Media::negotiate(request.headers()) {
        Ok(media) => media,
        Err(fault) => return fault.into_response(Media::Json),
    };
    let Call { request, operation, inputs } = match receive(request, limits).await {
        Ok(call) => call,
        Err(fault) => return fault.into_response(media),
    };
    match run(execute(request), operation, limits).await {
        Ok(mut response) => {
            settle(&mut response, limits, &inputs);
            respond(response, media)
        }
        Err(fault) => fault.into_response(media),
    }
}

/// A request that may be executed.
pub struct Call {
    /// Carries the parsed document, the operation's name and the variables.
    pub request: GraphQLRequest,
    pub operation: OperationType,
    pub inputs: Inputs,
}

/// What [`settle`] needs to tell bad variables from a bad document, and to show them.
#[derive(Debug, Default)]
pub struct Inputs {
    arguments: VariableArguments,
    /// Empty where no argument uses one.
    variables: Map<String, Json>,
}

/// What a client sends, whatever the transport.
pub struct Parameters {
    pub query: String,
    pub operation_name: Option<String>,
    pub variables: Map<String, Json>,
    pub extensions: Map<String, Json>,
}

/// Checks what does not depend on the transport: the document's size, grammar and chosen operation, and the
/// variables as far as the document alone tells.
///
/// # Errors
/// One error with its code; nothing has been executed.
pub fn check(parameters: Parameters, limits: &Limits) -> Result<Call, ServerError> {
    let Parameters { query, operation_name, variables, extensions } = parameters;
    check_text(&query, limits)?;
    let document = parse(&query)?;
    let operation = choose(&document, operation_name.as_deref())?;
    let arguments = check_document(&document, limits)?;
    check_repeated_mutations(&document, operation)?;
    check_variables(operation, &variables)?;

    let operation = operation.ty;
    let inputs = match arguments.is_empty() {
        true => Inputs::default(),
        false => Inputs { arguments, variables: variables.clone() },
    };
    let mut request = GraphQLRequest::new(query).variables(Variables::from_json(Json::Object(variables)));
    request.operation_name = operation_name;
    request
        .extensions
        .0
        .extend(extensions.into_iter().filter_map(|(name, value)| Some((name, Value::from_json(value).ok()?))));
    request.set_parsed_query(document);
    Ok(Call { request, operation, inputs })
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
        let mut response = respond(GraphQLResponse::from_errors(vec![*self.error]), media);
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

// ------------------------------------------------------------------------------------------------ media types

/// The two media types of an answer. They differ in how much the status says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Media {
    /// `application/json`: older clients take any other status than 200 as "no GraphQL behind this address".
    Json,
    /// `application/graphql-response+json`: nobody but a GraphQL service sends it, so the status can tell.
    GraphQL,
}

impl Media {
    const fn name(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::GraphQL => "application/graphql-response+json",
        }
    }

    const fn content_type(self) -> HeaderValue {
        match self {
            Self::Json => HeaderValue::from_static("application/json; charset=utf-8"),
            Self::GraphQL => HeaderValue::from_static("application/graphql-response+json; charset=utf-8"),
        }
    }

    /// The status for a document that cannot be executed.
    const fn refusal(self) -> StatusCode {
        match self {
            Self::Json => StatusCode::OK,
            Self::GraphQL => StatusCode::BAD_REQUEST,
        }
    }

    /// The media type that `Accept` likes best; JSON where it says nothing or does not care.
    fn negotiate(headers: &HeaderMap) -> Result<Self, Fault> {
        let values = || headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
        if values().all(|value| value.trim().is_empty()) {
            return Ok(Self::Json);
        }
        let ranges: Vec<_> = values().flat_map(|value| value.split(',')).filter_map(Range::parse).collect();
        let json = Self::Json.wanted(&ranges);
        let graphql = Self::GraphQL.wanted(&ranges);
        match (json, graphql) {
            (None, None) => {
                let message = format!(
                    "Accept is {:?}, which this address cannot answer with. Accept {} or {}.",
                    values().collect::<Vec<_>>().join(", "),
                    Self::GraphQL.name(),
                    Self::Json.name()
                );
                Err(Fault::new(StatusCode::NOT_ACCEPTABLE, code::BAD_USER_INPUT, message))
            }
            // Both named alike: the newer one, which says more. Both meant by a wildcard: the one all can read.
            (json, graphql) if graphql > json || (graphql == json && graphql.is_some_and(|rank| rank.1 == 2)) => {
                Ok(Self::GraphQL)
            }
            _ => Ok(Self::Json),
        }
    }

    /// How much the ranges want this type: the quality and precision of the most precise one; `None` if not at all.
    fn wanted(self, ranges: &[Range]) -> Option<(u16, u8)> {
        let matching = ranges.iter().filter_map(|range| Some((range.precision(self)?, range.quality)));
        let (precision, quality) = matching.max()?;
        (quality > 0).then_some((quality, precision))
    }
}

/// One media range of an `Accept` header.
struct Range<'a> {
    essence: &'a str,
    /// In thousandths.
    quality: u16,
}

impl<'a> Range<'a> {
    /// `None` for what is no range, or asks for another encoding than UTF-8.
    fn parse(text: &'a str) -> Option<Self> {
        let (essence, parameters) = split_media_type(text);
        let mut quality = 1000;
        for (name, value) in parameters {
            if name.eq_ignore_ascii_case("charset") && !is_utf8(value) {
                return None;
            }
            if name.eq_ignore_ascii_case("q") {
                let value: f32 = value.parse().ok().filter(|value| (0.0..=1.0).contains(value))?;
                // In range by the filter; a float's cast saturates in any case.
                quality = (value * 1000.0).round() as u16;
            }
        }
        (!essence.is_empty()).then_some(Self { essence, quality })
    }

    fn precision(&self, media: Media) -> Option<u8> {
        match self.essence {
            "*/*" => Some(0),
            essence if essence.eq_ignore_ascii_case("application/*") => Some(1),
            essence if essence.eq_ignore_ascii_case(media.name()) => Some(2),
            _ => None,
        }
    }
}

fn split_media_type(text: &str) -> (&str, impl Iterator<Item = (&str, &str)>) {
    let mut parts = text.split(';').map(str::trim);
    let essence = parts.next().unwrap_or_default();
    let parameters = parts.filter_map(|part| part.split_once('='));
    (essence, parameters.map(|(name, value)| (name.trim(), value.trim().trim_matches('"'))))
}

fn is_utf8(charset: &str) -> bool {
    charset.eq_ignore_ascii_case("utf-8") || charset.eq_ignore_ascii_case("utf8")
}

// ------------------------------------------------------------------------------------------------ receiving

async fn receive(request: Request, limits: &Limits) -> Result<Call, Fault> {
    let (head, body) = request.into_parts();
    let parameters = match head.method {
        Method::POST => {
            check_content_type(&head.headers)?;
            let limit = Duration::from_millis(limits.request_timeout_ms);
            let body = timeout(limit, read(body, limits.body_bytes_max)).await.map_err(|_| slow_body(limits))??;
            from_body(&body)?
        }
        Method::GET | Method::HEAD => from_query(head.uri.query().unwrap_or_default(), limits)?,
        method => {
            let message = format!("The method {method} is not answered here. Use POST, or GET for queries.");
            return Err(Fault::new(StatusCode::METHOD_NOT_ALLOWED, code::BAD_USER_INPUT, message)
                .with("allow", "GET, HEAD, POST"));
        }
    };
    let call = check(parameters, limits)?;
    match call.operation {
        OperationType::Query => Ok(call),
        OperationType::Mutation if head.method == Method::POST => Ok(call),
        OperationType::Mutation => {
            let message = "A mutation cannot be sent by GET, because a mere link could then start it. Send it by POST.";
            Err(Fault::new(StatusCode::METHOD_NOT_ALLOWED, code::BAD_USER_INPUT, message).with("allow", "POST"))
        }
        OperationType::Subscription => Err(Fault::bad_request(
            "A subscription cannot be answered here, because its answer does not end. Open it at /graphql/ws \
             (WebSocket, graphql-transport-ws) or /graphql/sse (server-sent events).",
        )),
    }
}

/// Only JSON, and only plain: a body of any other type could come from a form on a foreign page.
fn check_content_type(headers: &HeaderMap) -> Result<(), Fault> {
    let refuse = |problem: String| {
        let message = format!("{problem} Send the body as Content-Type: application/json, in UTF-8.");
        Err(Fault::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, code::BAD_USER_INPUT, message)
            .with("accept-post", "application/json"))
    };
    if let Some(encoding) = headers.get(header::CONTENT_ENCODING).filter(|encoding| *encoding != "identity") {
        return refuse(format!("Content-Encoding is {encoding:?}, and only plain bodies are read."));
    }
    let Some(content_type) = headers.get(header::CONTENT_TYPE) else {
        return refuse("Content-Type is missing.".to_owned());
    };
    let (essence, mut parameters) = split_media_type(content_type.to_str().unwrap_or_default());
    let unread = parameters.any(|(name, value)| name.eq_ignore_ascii_case("charset") && !is_utf8(value));
    if !essence.eq_ignore_ascii_case("application/json") || unread {
        return refuse(format!("Content-Type is {content_type:?}."));
    }
    Ok(())
}

/// The whole body, or a refusal as soon as it is known to be too long: announced, or while it arrives.
async fn read(mut body: Body, maximum: usize) -> Result<Bytes, Fault> {
    let too_long = || {
        let message = format!("The body is longer than {maximum} bytes (body_bytes_max). Send less in one request.");
        Fault::new(StatusCode::PAYLOAD_TOO_LARGE, code::BAD_USER_INPUT, message)
    };
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if announced > maximum {
        return Err(too_long());
    }
    let mut bytes = BytesMut::with_capacity(announced);
    while let Some(frame) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
        let frame = frame.map_err(|_| Fault::bad_request("The body broke off before its end. Send it again."))?;
        let Ok(data) = frame.into_data() else { continue };
        if data.len() > maximum - bytes.len() {
            return Err(too_long());
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes.freeze())
}

fn slow_body(limits: &Limits) -> Fault {
    let message = format!(
        "The body did not arrive within {} ms (request_timeout_ms). Nothing was executed; send it again.",
        limits.request_timeout_ms
    );
    Fault::new(StatusCode::REQUEST_TIMEOUT, code::REQUEST_TIMEOUT, message)
}

fn from_body(body: &[u8]) -> Result<Parameters, Fault> {
    if body.is_empty() {
        return Err(Fault::bad_request("The body is empty. Send JSON: {\"query\": \"{ __typename }\"}."));
    }
    let text = std::str::from_utf8(body).map_err(|error| {
        Fault::bad_request(format!("The body is not UTF-8: byte {} is wrong.", error.valid_up_to()))
    })?;
    let json =
        serde_json::from_str(text).map_err(|error| Fault::bad_request(format!("The body is not JSON: {error}.")))?;
    match json {
        Json::Object(members) => from_members(members),
        Json::Array(_) => Err(Fault::bad_request(
            "The body is an array, and several operations in one request are not answered. Send each in a request \
             of its own, as an object.",
        )),
        other => Err(Fault::bad_request(format!(
            "The body is {}. Send an object: {{\"query\": \"{{ __typename }}\"}}.",
            kind(&other)
        ))),
    }
}

/// The parameters of a GET. `variables` and `extensions` are JSON inside of the query string.
fn from_query(query: &str, limits: &Limits) -> Result<Parameters, Fault> {
    if query.len() > limits.query_bytes_max {
        let message = format!(
            "The query string has {} bytes; at most {} are allowed (query_bytes_max). Send it by POST.",
            query.len(),
            limits.query_bytes_max
        );
        return Err(Fault::new(StatusCode::URI_TOO_LONG, code::BAD_USER_INPUT, message));
    }
    let mut members = Map::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let (name, value) = (percent_decode(name)?, percent_decode(value)?);
        let value = match name.as_str() {
            "query" => Json::String(value),
            // Left empty, as forms do, means left out.
            "operationName" | "variables" | "extensions" if value.is_empty() => Json::Null,
            "operationName" => Json::String(value),
            "variables" | "extensions" => serde_json::from_str(&value)
                .map_err(|error| Fault::bad_request(format!("`{name}` in the query string is not JSON: {error}.")))?,
            _ => continue,
        };
        if members.insert(name.clone(), value).is_some() {
            return Err(Fault::bad_request(format!("`{name}` stands twice in the query string. Give it once.")));
        }
    }
    from_members(members)
}

/// `application/x-www-form-urlencoded`, one name or value.
fn percent_decode(text: &str) -> Result<String, Fault> {
    let refuse = || Fault::bad_request(format!("{text:?} in the query string is not percent-encoded UTF-8."));
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let mut digit = || rest.next().and_then(|digit| char::from(digit).to_digit(16));
                let (high, low) = digit().zip(digit()).ok_or_else(refuse)?;
                u8::try_from(high * 16 + low).map_err(|_| refuse())?
            }
            other => other,
        });
    }
    String::from_utf8(bytes).map_err(|_| refuse())
}

fn from_members(mut members: Map<String, Json>) -> Result<Parameters, Fault> {
    let mut take = |name: &str| members.remove(name).unwrap_or(Json::Null);
    let query = match take("query") {
        Json::String(query) => query,
        Json::Null => {
            return Err(Fault::bad_request("`query` is missing. Send the GraphQL document as a string named `query`."));
        }
        other => {
            return Err(Fault::bad_request(format!(
                "`query` is {}. Send the GraphQL document as a string.",
                kind(&other)
            )));
        }
    };
    let operation_name = match take("operationName") {
        Json::Null => None,
        Json::String(name) => Some(name).filter(|name| !name.is_empty()),
        other => {
            return Err(Fault::bad_request(format!(
                "`operationName` is {}. Send a string, or leave it out.",
                kind(&other)
            )));
        }
    };
    let mut object = |name: &str| match take(name) {
        Json::Null => Ok(Map::new()),
        Json::Object(members) => Ok(members),
        other => Err(Fault::bad_request(format!("`{name}` is {}. Send an object, or leave it out.", kind(&other)))),
    };
    Ok(Parameters { query, operation_name, variables: object("variables")?, extensions: object("extensions")? })
}

/// A JSON value as a message names it: short ones as they are.
fn kind(value: &Json) -> String {
    match value {
        Json::Null => "null".to_owned(),
        Json::Bool(_) | Json::Number(_) => value.to_string(),
        Json::String(text) if text.len() <= 40 => format!("the string {text:?}"),
        Json::String(_) => "a string".to_owned(),
        Json::Array(_) => "an array".to_owned(),
        Json::Object(_) => "an object".to_owned(),
    }
}

// ------------------------------------------------------------------------------------------------ the document

fn parse(query: &str) -> Result<ExecutableDocument, ServerError> {
    parser::parse_query(query).map_err(|error| {
        let at = error.positions().next();
        let failed =
            |reason: String| coded(code::GRAPHQL_PARSE_FAILED, format!("The document does not parse: {reason}"), at);
        match &error {
            parser::Error::Syntax { start, .. } if is_blank(query, *start) => {
                failed("it is empty. Send at least one operation, such as { __typename }.".to_owned())
            }
            parser::Error::Syntax { message, start, .. } => failed(format!(
                "at line {}, column {}, {}, {}.",
                start.line,
                start.column,
                found(query, *start),
                expected(message)
            )),
            parser::Error::RecursionLimitExceeded => coded(
                code::QUERY_TOO_EXPENSIVE,
                "The document is nested deeper than the parser follows. Ask for less depth.",
                at,
            ),
            parser::Error::MissingOperation => {
                failed("it holds fragments only. Add an operation that uses them.".to_owned())
            }
            parser::Error::MultipleOperations { .. } => {
                failed("an operation without a name must be the only one. Name them all.".to_owned())
            }
            other => failed(format!("{other}.")),
        }
    })
}

/// Nothing but white space and comments. The parser stops at its end then.
fn is_blank(query: &str, at: Pos) -> bool {
    let lines = query.lines().map(|line| line.trim_start_matches(['\u{feff}', ' ', '\t', ',']));
    lines.clone().count() <= at.line && lines.into_iter().all(|line| line.is_empty() || line.starts_with('#'))
}

/// The parser draws its errors over several lines; what it expected stands behind the last equals sign.
fn expected(drawing: &str) -> String {
    let reason = drawing.rsplit_once("\n  = ").map_or(drawing, |(_, reason)| reason);
    reason.trim().replace("EOI", "end of document").replace('_', " ")
}

fn found(query: &str, at: Pos) -> String {
    let line = query.split('\n').nth(at.line.saturating_sub(1)).unwrap_or_default();
    let rest: String = line.chars().skip(at.column.saturating_sub(1)).take(20).collect();
    match rest.trim_end() {
        "" if query.split('\n').count() <= at.line => "where the document ends".to_owned(),
        "" => "where the line ends".to_owned(),
        rest => format!("before `{rest}`"),
    }
}

/// The operation that is meant. Decided here, and not by the engine, because the method and the variables are
/// judged by it.
fn choose<'a>(document: &'a ExecutableDocument, name: Option<&str>) -> Result<&'a OperationDefinition, ServerError> {
    let refuse = |message: String| Err(coded(code::BAD_USER_INPUT, message, None));
    match (&document.operations, name) {
        (DocumentOperations::Single(operation), None) => Ok(&operation.node),
        (DocumentOperations::Single(_), Some(name)) => refuse(format!(
            "There is no operation {name:?}: the document's only one has no name. Leave operationName out."
        )),
        (DocumentOperations::Multiple(operations), name) => {
            let chosen = match name {
                Some(name) => operations.get(name),
                None if operations.len() == 1 => operations.values().next(),
                None => None,
            };
            if let Some(operation) = chosen {
                return Ok(&operation.node);
            }
            let mut names: Vec<_> = operations.keys().map(Name::as_str).collect();
            names.sort_unstable();
            let names = names.join(", ");
            match name {
                Some(name) => refuse(format!("There is no operation {name:?} in the document. It has: {names}.")),
                None => {
                    refuse(format!("The document has several operations: {names}. Say which one by operationName."))
                }
            }
        }
    }
}

/// Refuses a mutation that names one field twice under one name.
///
/// The specification merges the two and executes the field once; the engine executes it twice and merges the answers,
/// which would do twice what was asked for once. Whoever means two gives an alias.
fn check_repeated_mutations(document: &ExecutableDocument, operation: &OperationDefinition) -> Result<(), ServerError> {
    if operation.ty != OperationType::Mutation {
        return Ok(());
    }
    let mut seen = HashSet::new();
    // No cycle can be met: the document's fragments have been walked.
    let mut sets = vec![&operation.selection_set.node];
    while let Some(set) = sets.pop() {
        for selection in &set.items {
            match &selection.node {
                Selection::Field(field) => {
                    let key = field.node.response_key();
                    if !seen.insert(&key.node) {
                        let message = format!(
                            "The mutation has {:?} twice at its root. Leave one out, or give one an alias to execute both.",
                            key.node.as_str()
                        );
                        return Err(coded(code::GRAPHQL_VALIDATION_FAILED, message, Some(key.pos)));
                    }
                }
                Selection::InlineFragment(fragment) => sets.push(&fragment.node.selection_set.node),
                Selection::FragmentSpread(spread) => {
                    let fragment = document.fragments.get(&spread.node.fragment_name.node);
                    sets.extend(fragment.map(|fragment| &fragment.node.selection_set.node));
                }
            }
        }
    }
    Ok(())
}

// ------------------------------------------------------------------------------------------------ variables

/// Checks variables against their declared types, as far as those are built into GraphQL.
///
/// The engine finds a missing or wrong variable only when a resolver asks for it, so that half an answer is there
/// already; the specification wants such a request refused whole. Types of the schema it checks by validation.
fn check_variables(operation: &OperationDefinition, variables: &Map<String, Json>) -> Result<(), ServerError> {
    for definition in &operation.variable_definitions {
        let definition = &definition.node;
        let (name, wanted) = (&definition.name.node, &definition.var_type.node);
        let refuse = |problem: String| {
            let message = format!("Variable ${name} {problem}. Its type is {wanted}.");
            Err(coded(code::BAD_USER_INPUT, message, Some(definition.name.pos)))
        };
        match variables.get(name.as_str()) {
            None if definition.default_value.is_some() || wanted.nullable => {}
            None => return refuse("is missing".to_owned()),
            Some(value) => {
                if let Err(problem) = check_value(wanted, value) {
                    return refuse(problem);
                }
            }
        }
    }
    Ok(())
}

/// What is wrong with a value, worded to follow the variable's name.
fn check_value(wanted: &Type, value: &Json) -> Result<(), String> {
    let fits = match (&wanted.base, value) {
        (_, Json::Null) if wanted.nullable => return Ok(()),
        (_, Json::Null) => return Err("is null".to_owned()),
        (BaseType::List(item), Json::Array(values)) => {
            let faulty = values.iter().enumerate().find_map(|(at, value)| Some((at, check_value(item, value).err()?)));
            return faulty.map_or(Ok(()), |(at, problem)| Err(format!("at index {at} {problem}")));
        }
        // A single value stands for the list of itself.
        (BaseType::List(item), value) => return check_value(item, value),
        (BaseType::Named(name), value) => match name.as_str() {
            "Int" => value.as_i64().is_some_and(|number| i32::try_from(number).is_ok()),
            "Float" => value.is_number(),
            "String" => value.is_string(),
            "Boolean" => value.is_boolean(),
            "ID" => value.is_string() || value.is_i64() || value.is_u64(),
            _ => true,
        },
    };
    if fits {
        return Ok(());
    }
    let range = match (&wanted.base, value) {
        (BaseType::Named(name), Json::Number(_)) if name == "Int" => {
            ", and Int holds whole numbers from -2147483648 to 2147483647"
        }
        _ => "",
    };
    Err(format!("is {}{range}", kind(value)))
}

// ------------------------------------------------------------------------------------------------ executing

/// Drops an execution together with whoever waits for it.
struct AbortOnDrop(AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn run<Fut>(execution: Fut, operation: OperationType, limits: &Limits) -> Result<GraphQLResponse, Fault>
where
    Fut: Future<Output = GraphQLResponse> + Send + 'static,
{
    let mut task = tokio::spawn(execution);
    let _abort = (operation != OperationType::Mutation).then(|| AbortOnDrop(task.abort_handle()));
    match timeout(Duration::from_millis(limits.request_timeout_ms), &mut task).await {
        Ok(Ok(response)) => Ok(response),
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

// ------------------------------------------------------------------------------------------------ the engine's errors

/// Gives every error that the engine made a code; errors that resolvers coded stay as they are.
///
/// The engine tells its own errors apart by their text alone, which is why its version is pinned and the tests
/// below provoke each of them.
pub fn settle(response: &mut GraphQLResponse, limits: &Limits, inputs: &Inputs) {
    let refused = is_refused(response);
    for error in &mut response.errors {
        let code = match code_of(error) {
            Some(code::INTERNAL) => code::INTERNAL,
            Some(_) => continue,
            None if refused => code_of_refusal(error, inputs),
            None => code_of_failure(error),
        };
        if code == code::INTERNAL {
            error.message = INTERNAL_MESSAGE.to_owned();
            error.extensions = None;
        }
        if error.message == TOO_COMPLEX {
            error.message = format!(
                "The query may cost more than {} (complexity_max): every field counts, times the size of the pages \
                 that it stands in. Ask for smaller pages or fewer fields.",
                limits.complexity_max
            );
        }
        if let Some(value) = inputs.blamed(error) {
            error.message = format!("{}; it is {value}.", error.message);
        }
        error.extensions.get_or_insert_default().set("code", code);
    }
}

const WRONG_ARGUMENT: &str = "Invalid value for argument \"";

impl Inputs {
    /// The value that an error of validation is about, where it came from a variable. The engine names the place of
    /// it, beginning with the argument (`"input.tags.0"`), but not the value.
    fn blamed(&self, error: &ServerError) -> Option<String> {
        let (path, _) = error.message.strip_prefix(WRONG_ARGUMENT)?.split_once('"')?;
        let written = error.locations.iter().find_map(|at| self.arguments.get(at))?;
        let variable = self.variables.get(written.strip_prefix('$')?)?;
        let value = path.split('.').skip(1).try_fold(variable, |value, segment| match value {
            Json::Array(items) => items.get(segment.parse::<usize>().ok()?),
            other => other.get(segment),
        })?;
        Some(kind(value))
    }
}

/// Whether nothing was executed. Errors of an execution say on which path they happened.
fn is_refused(response: &GraphQLResponse) -> bool {
    response.data == async_graphql::Value::Null
        && !response.errors.is_empty()
        && response.errors.iter().all(|error| error.path.is_empty())
}

fn code_of(error: &ServerError) -> Option<&str> {
    match error.extensions.as_ref()?.get("code")? {
        async_graphql::Value::String(code) => Some(code),
        _ => None,
    }
}

const TOO_COMPLEX: &str = "Query is too complex.";

/// The code of an error that kept the engine from executing.
fn code_of_refusal(error: &ServerError, inputs: &Inputs) -> &'static str {
    const TOO_EXPENSIVE: [&str; 4] = [
        TOO_COMPLEX,
        "Query is nested too deep.",
        "The recursion depth of the query cannot",
        "The number of directives on the field",
    ];
    if TOO_EXPENSIVE.iter().any(|start| error.message.starts_with(start)) {
        return code::QUERY_TOO_EXPENSIVE;
    }
    let from_variable = error.locations.iter().any(|at| inputs.arguments.contains_key(at));
    if from_variable && error.message.starts_with(WRONG_ARGUMENT) {
        return code::BAD_USER_INPUT;
    }
    code::GRAPHQL_VALIDATION_FAILED
}

/// The code of an error of a field: the engine's own are about arguments that a scalar or validator refused;
/// anything else is an error that somebody forgot to code, and might say what a stranger should not read.
fn code_of_failure(error: &ServerError) -> &'static str {
    const INPUT: [&str; 2] = ["Failed to parse \"", "Expected input type \""];
    let undefined = error.message.starts_with("Variable ") && error.message.ends_with(" is not defined.");
    match undefined || INPUT.iter().any(|start| error.message.starts_with(start)) {
        true => code::BAD_USER_INPUT,
        false => code::INTERNAL,
    }
}

// ------------------------------------------------------------------------------------------------ answering

fn respond(response: GraphQLResponse, media: Media) -> Response {
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

    let refused = is_refused(&response);
    let status = if refused { status(&response.errors, media) } else { StatusCode::OK };
    let answer = Answer {
        errors: &response.errors,
        data: (!refused).then_some(&response.data),
        extensions: &response.extensions,
    };
    let (status, body) = match serde_json::to_vec(&answer) {
        Ok(body) => (status, body),
        // Only a scalar that serializes to no JSON could bring us here.
        Err(_) => (
            StatusCode::INTERNAL_SERVER_ERROR,
            br#"{"errors":[{"message":"The answer could not be written.","extensions":{"code":"INTERNAL"}}]}"#.to_vec(),
        ),
    };

    let mut answer = Response::new(Body::from(body));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.extend(response.http_headers);
    headers.insert(header::CONTENT_TYPE, media.content_type());
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::VARY, HeaderValue::from_static("accept"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if status == StatusCode::UNAUTHORIZED && !headers.contains_key(header::WWW_AUTHENTICATE) {
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    answer
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
