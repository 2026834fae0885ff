//! The settings document `policies`: what the service itself goes by. Other namespaces are the clients' own, and free.

use serde_json::Value;

use super::Organization;
use crate::error::Refusal;

/// The namespace of the document.
const NAMESPACE: &str = "policies";
/// What becomes of the open invitations that a removed member made.
const INVITATIONS: &str = "invitationsOfRemovedMembers";
/// What becomes of the API tokens that a removed member is responsible for.
const TOKENS: &str = "tokensOfRemovedMembers";
const KEEP: &str = "keep";
const REVOKE: &str = "revoke";
/// All keys, with what each may be.
const KEYS: [(&str, [&str; 2]); 2] = [(INVITATIONS, [KEEP, REVOKE]), (TOKENS, [KEEP, REVOKE])];

/// Refuses a document of a namespace that the service knows, where it would not be understood: a misspelled key would
/// seem to be in force.
pub(super) fn check(namespace: &str, document: &Value) -> Result<(), Refusal> {
    if namespace != NAMESPACE || document.is_null() {
        return Ok(());
    }
    let refuse = |message: String| Err(Refusal::input("value", message));
    let known = || KEYS.map(|(key, _)| key).join(", ");
    let Some(entries) = document.as_object() else {
        return refuse(format!("the settings document {NAMESPACE:?} is an object with some of: {}", known()));
    };
    for (key, value) in entries {
        let Some((_, allowed)) = KEYS.iter().find(|(name, _)| name == key) else {
            let shown: String = key.chars().take(80).collect();
            return refuse(format!("{NAMESPACE:?} has no key {shown:?}: give some of {}", known()));
        };
        if !value.as_str().is_some_and(|value| allowed.contains(&value)) {
            let allowed = allowed.map(|value| format!("{value:?}")).join(" or ");
            return refuse(format!("{key:?} of {NAMESPACE:?} is neither of {allowed}"));
        }
    }
    Ok(())
}

impl Organization {
    /// Whether invitations stay open when the member who made them is removed or leaves. By default they are revoked.
    pub fn keeps_invitations_of_removed_members(&self) -> bool {
        self.policy(INVITATIONS) == Some(KEEP)
    }

    /// Whether API tokens are revoked when the member responsible for them is removed or leaves. By default they are
    /// kept: what a service does should not end with somebody's contract.
    pub fn revokes_tokens_of_removed_members(&self) -> bool {
        self.policy(TOKENS) == Some(REVOKE)
    }

    fn policy(&self, key: &str) -> Option<&str> {
        self.settings.get(NAMESPACE)?.get(key)?.as_str()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    #[test]
    fn policies_are_what_the_service_understands() {
        for good in [json!(null), json!({}), json!({INVITATIONS: KEEP}), json!({INVITATIONS: REVOKE, TOKENS: REVOKE})] {
            assert!(check(NAMESPACE, &good).is_ok(), "{good}");
        }
        for (bad, message) in [
            (json!([]), "is an object"),
            (json!({"invitationsOfRemovedMember": KEEP}), "has no key \"invitationsOfRemovedMember\""),
            (json!({TOKENS: "revoked"}), "is neither of \"keep\" or \"revoke\""),
            (json!({TOKENS: true}), "is neither of"),
        ] {
            let refusal = check(NAMESPACE, &bad).unwrap_err().to_string();
            assert!(refusal.contains(message), "{bad}: {refusal}");
        }
        assert!(check("branding", &json!({"tokensOfRemovedMember": [1]})).is_ok(), "others are free");
    }
}
