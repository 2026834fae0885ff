//! Receiving a request: its body or query string within their limits, and the members of it.

use super::media::{is_utf8, split_media_type};
use super::*;

pub(super) async fn receive(request: Request, documents: &Documents, streams: bool) -> Result<Call, Fault> {
    let (method, call) = call(request, documents).await?;
    match call.operation {
        OperationType::Query => Ok(call),
        OperationType::Mutation if method == Method::POST => Ok(call),
        OperationType::Mutation => {
            let message = "A mutation cannot be sent by GET, because a mere link could then start it. Send it by POST.";
            Err(Fault::new(StatusCode::METHOD_NOT_ALLOWED, code::BAD_USER_INPUT, message).with("allow", "POST"))
        }
        OperationType::Subscription if streams => Ok(call),
        OperationType::Subscription => Err(Fault::bad_request(
            "A subscription cannot be answered with one response, because its answer does not end. Accept \
             text/event-stream, or open it at /graphql/ws (WebSocket, graphql-transport-ws) or /graphql/sse.",
        )),
    }
}

/// A subscription, sent as any other operation.
pub(super) async fn receive_subscription(request: Request, documents: &Documents) -> Result<Call, Fault> {
    let (_, call) = call(request, documents).await?;
    Ok(only_subscription(call)?)
}

/// Lets only a subscription pass.
pub(super) fn only_subscription(call: Call) -> Result<Call, ServerError> {
    match call.operation {
        OperationType::Subscription => Ok(call),
        OperationType::Query | OperationType::Mutation => {
            let message = "Only subscriptions are answered here. Send queries and mutations to /graphql.";
            Err(coded(code::BAD_USER_INPUT, message, None))
        }
    }
}

/// What was sent, by GET or POST, as far as it can be judged without executing it.
async fn call(request: Request, documents: &Documents) -> Result<(Method, Call), Fault> {
    let limits = &documents.limits;
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
    Ok((head.method, check(parameters, documents)?))
}

/// Only JSON, and only plain: a body of any other type could come from a form on a foreign page.
pub(super) fn check_content_type(headers: &HeaderMap) -> Result<(), Fault> {
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
pub(super) async fn read(mut body: Body, maximum: usize) -> Result<Bytes, Fault> {
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

pub(super) fn slow_body(limits: &Limits) -> Fault {
    let message = format!(
        "The body did not arrive within {} ms (request_timeout_ms). Nothing was executed; send it again.",
        limits.request_timeout_ms
    );
    Fault::new(StatusCode::REQUEST_TIMEOUT, code::REQUEST_TIMEOUT, message)
}

pub(super) fn from_body(body: &[u8]) -> Result<Parameters, Fault> {
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
pub(super) fn from_query(query: &str, limits: &Limits) -> Result<Parameters, Fault> {
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
            "query" | "documentId" => Json::String(value),
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
pub(super) fn percent_decode(text: &str) -> Result<String, Fault> {
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

/// What says which document is meant.
pub enum Source {
    /// Its text.
    Text(String),
    /// The id of a persisted one.
    Id(String),
}

pub(super) fn from_members(mut members: Map<String, Json>) -> Result<Parameters, Fault> {
    let persisted = members.get("extensions").is_some_and(|extensions| extensions.get("persistedQuery").is_some());
    let mut take = |name: &str| members.remove(name).unwrap_or(Json::Null);
    let source = match (take("query"), take("documentId")) {
        (Json::String(query), Json::Null) => Source::Text(query),
        (Json::Null, Json::String(id)) => Source::Id(id),
        // Clients that know this answer send the document as well, from then on.
        (Json::Null, Json::Null) if persisted => {
            return Err(coded(code::PERSISTED_QUERY_NOT_SUPPORTED, "PersistedQueryNotSupported", None).into());
        }
        (Json::Null, Json::Null) => {
            return Err(Fault::bad_request(
                "`query` is missing. Send the GraphQL document as a string named `query`, or the id of a persisted one \
                 as `documentId`.",
            ));
        }
        (Json::String(_), Json::String(_)) => {
            return Err(Fault::bad_request("`query` and `documentId` were both sent. Send one of them."));
        }
        (Json::Null | Json::String(_), other) => {
            return Err(Fault::bad_request(format!("`documentId` is {}. Send a string.", kind(&other))));
        }
        (other, _) => {
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
    Ok(Parameters { source, operation_name, variables: object("variables")?, extensions: object("extensions")? })
}

/// A JSON value as a message names it: short ones as they are.
pub(super) fn kind(value: &Json) -> String {
    match value {
        Json::Null => "null".to_owned(),
        Json::Bool(_) | Json::Number(_) => value.to_string(),
        Json::String(text) if text.len() <= 40 => format!("the string {text:?}"),
        Json::String(_) => "a string".to_owned(),
        Json::Array(_) => "an array".to_owned(),
        Json::Object(_) => "an object".to_owned(),
    }
}
