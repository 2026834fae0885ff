//! Speaks GraphQL over HTTP to a replica, and says what an answer means: done, refused, or nobody knows.

use std::time::Duration;

use serde_json::{Value, json};

use crate::history::Outcome;

/// Codes of faults after which nothing was changed, as the contract has it.
const REFUSING_FAULTS: [&str; 6] =
    ["NOT_FOUND", "FORBIDDEN", "BAD_USER_INPUT", "CONFLICT", "IDEMPOTENCY_KEY_REUSED", "UNAUTHENTICATED"];

/// Sends a request; an error is in words.
pub async fn send(
    http: &reqwest::Client,
    url: &str,
    token: &str,
    request_id: Option<&str>,
    body: &Value,
    wait: Duration,
) -> Result<Value, String> {
    let mut request = http.post(url).bearer_auth(token).json(body);
    if let Some(id) = request_id {
        request = request.header("x-request-id", id);
    }
    let answered = async {
        let response = request.send().await.map_err(|error| kind(&error))?;
        let status = response.status();
        response.json::<Value>().await.map_err(|_| format!("status {}", status.as_u16()))
    };
    tokio::time::timeout(wait, answered).await.unwrap_or_else(|_| Err("no answer in time".to_owned()))
}

fn kind(error: &reqwest::Error) -> String {
    (if error.is_connect() { "no connection" } else { "connection lost" }).to_owned()
}

/// The code of the first fault of an answer.
pub fn fault(answer: &Value) -> Option<&str> {
    answer.pointer("/errors/0/extensions/code").and_then(Value::as_str)
}

/// What an answer says of the mutation of this name.
pub fn outcome(mutation: &str, answer: &Value) -> Outcome {
    let payload = answer.pointer(&format!("/data/{mutation}")).filter(|payload| payload.is_object());
    let Some(payload) = payload else {
        return match fault(answer) {
            Some(code) if REFUSING_FAULTS.contains(&code) => Outcome::Refused { code: code.to_owned() },
            Some(code) => Outcome::Unknown { why: code.to_owned() },
            None => Outcome::Unknown { why: "an answer that says nothing".to_owned() },
        };
    };
    if let Some(code) = payload.pointer("/errors/0/code").and_then(Value::as_str) {
        return Outcome::Refused { code: code.to_owned() };
    }
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let events = payload["events"].as_array().into_iter().flatten().filter_map(|event| text(&event["id"])).collect();
    let entities = payload
        .as_object()
        .into_iter()
        .flatten()
        .filter_map(|(_, entity)| Some((text(entity.get("id")?)?, entity.get("version")?.as_i64()?)));
    Outcome::Acknowledged {
        events,
        position: text(&payload["position"]),
        replayed: payload["replayed"] == json!(true),
        entities: entities.collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_an_acknowledgement_a_refusal_or_unknown() {
        let done = json!({"data": {"m": {"errors": [], "events": [{"id": "evt_1"}], "position": "p", "replayed": false,
                                         "project": {"id": "prj_1", "version": 3}}}});
        let Outcome::Acknowledged { events, entities, replayed, .. } = outcome("m", &done) else { panic!() };
        assert_eq!((events, entities, replayed), (vec!["evt_1".into()], vec![("prj_1".into(), 3)], false));
        let refused = json!({"data": {"m": {"errors": [{"code": "LIMIT_REACHED"}], "events": []}}});
        assert_eq!(outcome("m", &refused), Outcome::Refused { code: "LIMIT_REACHED".into() });
        let fault = |code: &str| json!({"data": {"m": null}, "errors": [{"extensions": {"code": code}}]});
        assert_eq!(outcome("m", &fault("CONFLICT")), Outcome::Refused { code: "CONFLICT".into() });
        assert_eq!(outcome("m", &fault("UNAVAILABLE")), Outcome::Unknown { why: "UNAVAILABLE".into() });
        assert!(matches!(outcome("m", &json!({})), Outcome::Unknown { .. }));
    }
}
