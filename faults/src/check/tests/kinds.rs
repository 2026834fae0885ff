//! The rules of each kind of stream: a history that holds, and ones that are noticed.

use super::*;

const CYD: &str = "user:usr_cyd";
const TOKEN: &str = "token:tok_1";
const FITS: &str = "an event fits the state that it changes";
const MAY: &str = "who acts may do it, at that moment";
const STATUS: &str = "an organization's status allows what is done";
const GIVEN: &str = "what is taken could still be given";

#[track_caller]
fn holds(write: impl FnOnce(&mut Log)) {
    let mut log = Log::good();
    write(&mut log);
    let findings = log.judged().1;
    assert!(findings.is_empty(), "{}", findings.describe());
}

impl Log {
    fn roomy(&mut self) -> &mut Self {
        for limit in ["members", "projects"] {
            let before = if limit == "members" { 2 } else { 1 };
            let body = json!({"limit": limit, "maximum": 9, "previous_maximum": before, "from_plan": false});
            self.command().add(OPS, "org_a", "org_a", "OrgLimitSet", body);
        }
        self
    }

    fn role(&mut self, actor: &str, name: &str, permissions: &[&str]) -> &mut Self {
        let body = json!({"role": name, "description": "", "permissions": permissions});
        self.command().add(actor, "org_a", "org_a", "RoleDefined", body)
    }

    fn remove_role(&mut self, name: &str, permissions: &[&str], with: Option<&str>) -> &mut Self {
        let body = json!({"role": name, "description": "", "permissions": permissions, "replaced_with": with});
        self.command().add(ADA, "org_a", "org_a", "RoleRemoved", body)
    }

    fn roles(&mut self, actor: &str, user: &str, roles: &[&str], before: &[&str]) -> &mut Self {
        let body = json!({"user_id": user, "roles": roles, "previous_roles": before});
        self.add(actor, "org_a", &format!("mem_org_a_{user}"), "MemberRolesChanged", body)
    }

    fn member(&mut self, actor: &str, user: &str, name: &str, roles: &[&str]) -> &mut Self {
        let body = json!({"user_id": user, "roles": roles, "previous_state": "ACTIVE"});
        self.command().add(actor, "org_a", &format!("mem_org_a_{user}"), name, body)
    }

    fn offer(&mut self, actor: &str, name: &str) -> &mut Self {
        let by = if actor == OPS { OPS } else { ADA };
        let body = json!({"membership_id": "mem_org_a_usr_bea", "user_id": "usr_bea", "offered_by": by,
                          "offered_at": "2026-01-01T00:00:00Z"});
        self.command().add(actor, "org_a", "org_a", name, body)
    }

    fn revoke_token(&mut self, actor: &str, id: &str) -> &mut Self {
        let body = json!({"secret_digest": format!("secret of {id}"), "revoked_at": "2026-01-01T01:00:00Z"});
        self.add(actor, "org_a", id, "TokenRevoked", body)
    }

    fn user_is(&mut self, actor: &str, user: &str, name: &str, to: &str, before: &str) -> &mut Self {
        let body = json!({"user_state": to, "previous_user_state": before,
                          "identity_claim": format!("identity of {user}"), "email_claims": []});
        self.command().add(actor, "", user, name, body)
    }

    fn block(&mut self) -> &mut Self {
        let step = json!({"verification": "BLOCKED", "previous_verification": "VERIFIED"});
        self.command().add(OPS, "org_a", "org_a", "OrgBlocked", step)
    }

    fn delete_organization(&mut self) -> &mut Self {
        let body = json!({"previous_lifecycle": "ACTIVE", "purge_at": "2026-01-01T00:00:00Z", "by_operator": false});
        self.command().add(ADA, "org_a", "org_a", "OrgDeleted", body)
    }

    fn purge(&mut self) -> &mut Self {
        let body = json!({"slug": "three", "external_id": null});
        self.command().add("system", "org_a", "org_a", "OrgPurged", body)
    }

    fn webhook(&mut self, actor: &str, name: &str, body: Value) -> &mut Self {
        self.command().add(actor, "org_a", "whk_1", name, body)
    }
}

#[test]
fn tokens_are_within_what_their_creators_may_do() {
    holds(|log| {
        log.token("tok_2", ADA, &["member:read"]).command().revoke_token(ADA, "tok_2");
        log.delete_project("prj_2", "web");
        let body = json!({"name": "by", "slug": "token", "metadata": {}, "created_at": "2026-01-01T00:00:00Z"});
        log.command().add(TOKEN, "org_a", "prj_3", "ProjectCreated", body);
    });
    is_noticed(MAY, |log| {
        log.token("tok_2", BEA, &["organization:read"]);
    });
    is_noticed(MAY, |log| {
        log.role(ADA, "hands", &["organization:read", "token:manage"]).roomy().command();
        log.roles(ADA, "usr_bea", &["hands"], &["member"]).token("tok_2", BEA, &["audit:read"]);
        log.last().body["responsible"] = json!(BEA);
    });
    is_noticed(MAY, |log| {
        log.token("tok_2", ADA, &["no:permission"]);
    });
    is_noticed("a token says by whom it is, and who answers for it", |log| {
        log.token("tok_2", ADA, &["member:read"]);
        log.last().body["responsible"] = json!(BEA);
    });
    is_noticed(STATUS, |log| {
        log.block().token("tok_2", ADA, &["member:read"]);
    });
}

#[test]
fn tokens_act_while_they_may() {
    let create = |log: &mut Log| {
        let body = json!({"name": "by", "slug": "token", "metadata": {}, "created_at": "2026-01-01T00:00:00Z"});
        log.command().add(TOKEN, "org_a", "prj_3", "ProjectCreated", body);
    };
    holds(|log| {
        log.roomy();
        create(log);
    });
    is_noticed(MAY, |log| {
        log.roomy().command().revoke_token(ADA, "tok_1");
        create(log);
    });
    is_noticed(MAY, |log| {
        log.roomy().find("TokenCreated").body["token_expires_at"] = json!("2026-01-01T00:00:00Z");
        create(log);
    });
    let suspended = |by: &str| {
        let by = by.to_owned();
        move |log: &mut Log| {
            log.roomy().command().roles(ADA, "usr_bea", &["owner"], &["member"]);
            log.member(&by, "usr_ada", "MemberSuspended", &["owner"]);
        }
    };
    holds(suspended(BEA));
    // A token rests while the user who answers for it is suspended.
    is_noticed(MAY, |log| {
        suspended(BEA)(log);
        create(log);
    });
    is_noticed(MAY, |log| log.find("TokenCreated").body["permissions"] = json!([]));
    is_noticed(MAY, |log| {
        log.member(TOKEN, "usr_bea", "MemberRemoved", &["member"]);
    });
}

#[test]
fn tokens_end_once_and_with_memberships_where_that_is_wanted() {
    let policy = |log: &mut Log| {
        log.settings("org_a", ADA, "policies", json!({"tokensOfRemovedMembers": "revoke"}));
        log.command().roles(ADA, "usr_bea", &["owner"], &["member"]);
    };
    holds(|log| {
        policy(log);
        log.member(BEA, "usr_ada", "MemberRemoved", &["owner"]).revoke_token(BEA, "tok_1");
    });
    // Somebody who may revoke no token may leave, and their own tokens end with that.
    let leaves = |log: &mut Log| {
        log.command().roles(ADA, "usr_bea", &["admin"], &["member"]).token("tok_2", BEA, &["project:read"]);
        log.last().body["responsible"] = json!(BEA);
        log.command().roles(ADA, "usr_bea", &["guest"], &["admin"]).member(BEA, "usr_bea", "MemberLeft", &["guest"]);
        log.revoke_token(BEA, "tok_2");
    };
    holds(|log| {
        log.settings("org_a", ADA, "policies", json!({"tokensOfRemovedMembers": "revoke"}));
        leaves(log);
    });
    is_noticed(MAY, leaves);
    // What was not seen then is revoked by the service.
    holds(|log| {
        policy(log);
        log.member(BEA, "usr_ada", "MemberRemoved", &["owner"]).command().revoke_token("system", "tok_1");
    });
    is_noticed(MAY, |log| {
        log.command().roles(ADA, "usr_bea", &["owner"], &["member"]);
        log.member(BEA, "usr_ada", "MemberRemoved", &["owner"]).command().revoke_token("system", "tok_1");
    });
    is_noticed(FITS, |log| {
        log.command().revoke_token(ADA, "tok_1").command().revoke_token(ADA, "tok_1");
    });
    is_noticed("nothing runs out before its time", |log| {
        log.find("TokenCreated").body["token_expires_at"] = json!("2027-01-01T00:00:00Z");
        let body = json!({"secret_digest": "secret of tok_1", "expires_at": "2027-01-01T00:00:00Z"});
        log.command().add("system", "org_a", "tok_1", "TokenExpired", body);
    });
}

#[test]
fn tokens_and_endpoints_are_counted() {
    for (limit, create) in [("tokens", "tok_2"), ("webhooks", "whk_2")] {
        let spoil = |log: &mut Log| {
            let body = json!({"limit": limit, "maximum": 1, "previous_maximum": 100, "from_plan": false});
            log.command().add(OPS, "org_a", "org_a", "OrgLimitSet", body);
            match limit {
                "tokens" => log.token(create, ADA, &["member:read"]),
                _ => log.endpoint(create),
            };
        };
        is_noticed("nothing grows beyond its maximum", spoil);
    }
    is_noticed(FITS, |log| {
        let body = json!({"limit": "tokens", "maximum": 7, "previous_maximum": 5, "from_plan": false});
        log.command().add(OPS, "org_a", "org_a", "OrgLimitSet", body);
    });
}

#[test]
fn own_roles_are_within_what_their_authors_may_do() {
    holds(|log| {
        log.role(ADA, "reader", &["organization:read"]).roomy().command();
        log.roles(ADA, "usr_bea", &["reader"], &["member"]);
        log.remove_role("reader", &["organization:read"], Some("guest"));
        log.roles(ADA, "usr_bea", &["guest"], &["reader"]);
    });
    is_noticed("a role that is removed has no holder", |log| {
        log.role(ADA, "reader", &["organization:read"]).command().roles(ADA, "usr_bea", &["reader"], &["member"]);
        log.remove_role("reader", &["organization:read"], None);
    });
    is_noticed(FITS, |log| {
        log.role(ADA, "reader", &["organization:read"]).remove_role("reader", &["organization:read"], None);
        log.role(ADA, "reader", &["organization:read"]);
    });
    is_noticed(MAY, |log| {
        log.role(BEA, "reader", &["organization:read"]);
    });
    is_noticed(MAY, |log| {
        // An admin does not make a role that deletes the organization.
        log.command().roles(ADA, "usr_bea", &["admin"], &["member"]).role(BEA, "end", &["organization:delete"]);
    });
    // A role permits what it permitted then.
    is_noticed(MAY, |log| {
        log.role(ADA, "maker", &["organization:read", "project:create"]);
        log.command().roles(ADA, "usr_bea", &["maker"], &["member"]);
        let body = json!({"role": "maker", "description": "", "previous_description": "",
                          "permissions": ["organization:read"], "previous_permissions": ["organization:read", "project:create"]});
        log.command().add(ADA, "org_a", "org_a", "RoleChanged", body).delete_project("prj_2", "web");
        log.project("prj_3", "x").last().actor = BEA.into();
    });
}

#[test]
fn ownership_is_handed_over_by_one_command() {
    let accept = |log: &mut Log| {
        log.offer(BEA, "OwnershipAccepted").roles(BEA, "usr_bea", &["owner", "member"], &["member"]);
        log.roles(BEA, "usr_ada", &["admin"], &["owner"]);
    };
    holds(|log| {
        log.offer(ADA, "OwnershipOffered");
        accept(log);
    });
    holds(|log| {
        log.offer(ADA, "OwnershipOffered").offer(BEA, "OwnershipOfferWithdrawn");
    });
    is_noticed(FITS, accept);
    is_noticed("ownership goes over by one command", |log| {
        log.offer(ADA, "OwnershipOffered").offer(BEA, "OwnershipAccepted");
    });
    is_noticed(MAY, |log| {
        log.offer(BEA, "OwnershipOffered").last().body["offered_by"] = json!(BEA);
    });
    is_noticed("an offer of ownership says by whom it is", |log| {
        log.offer(ADA, "OwnershipOffered").last().body["offered_by"] = json!(OPS);
    });
    is_noticed("an open offer of ownership can be accepted", |log| {
        log.offer(ADA, "OwnershipOffered").member(ADA, "usr_bea", "MemberRemoved", &["member"]);
    });
    is_noticed(GIVEN, |log| {
        log.offer(ADA, "OwnershipOffered").roomy().command().roles(OPS, "usr_bea", &["member", "guest"], &["member"]);
        log.command().roles(OPS, "usr_ada", &["admin"], &["owner"]);
        accept(log);
    });
    is_noticed("an acceptance changes those whom it is about", |log| {
        log.offer(ADA, "OwnershipOffered");
        log.add(OPS, "org_a", "mem_org_a_usr_eve", "MemberJoined", joined("usr_eve", "guest", None));
        accept(log);
        log.roles(BEA, "usr_eve", &["member"], &["guest"]);
    });
}

#[test]
fn memberships_change_by_those_who_may_do_as_much() {
    holds(|log| {
        log.command().roles(ADA, "usr_bea", &["admin"], &["member"]).member(
            ADA,
            "usr_bea",
            "MemberSuspended",
            &["admin"],
        );
        log.member(ADA, "usr_bea", "MemberReinstated", &["admin"]);
    });
    is_noticed(MAY, |log| {
        log.role(ADA, "hands", &["organization:read", "member:read", "member:update"]).command();
        log.roles(ADA, "usr_bea", &["hands"], &["member"]);
        log.command().roles(BEA, "usr_bea", &["admin"], &["hands"]);
    });
    is_noticed(MAY, |log| {
        log.command().roles(ADA, "usr_bea", &["admin"], &["member"]).member(
            BEA,
            "usr_ada",
            "MemberSuspended",
            &["owner"],
        );
    });
    is_noticed(STATUS, |log| {
        log.block().command().roles(ADA, "usr_bea", &["admin"], &["member"]);
    });
    // Less is given in any status but that of a deleted organization.
    holds(|log| {
        log.block().command().roles(ADA, "usr_bea", &["guest"], &["member"]);
    });
    is_noticed(STATUS, |log| {
        log.delete_organization().member(ADA, "usr_bea", "MemberRemoved", &["member"]);
    });
    // Nobody comes back from a suspension without somebody who may lift it.
    let comes_back = |log: &mut Log, by: &[&str]| {
        log.role(ADA, "door", by).role(ADA, "x", &["organization:read"]).roomy();
        log.command().add(OPS, "org_a", "mem_org_a_usr_eve", "MemberJoined", joined("usr_eve", "door", None));
        log.member(ADA, "usr_bea", "MemberSuspended", &["member"]).member(BEA, "usr_bea", "MemberLeft", &["member"]);
        log.last().body["previous_state"] = json!("SUSPENDED");
        log.command().add("user:usr_eve", "org_a", "mem_org_a_usr_bea", "MemberJoined", joined("usr_bea", "x", None));
    };
    holds(|log| comes_back(log, &["organization:read", "member:add", "member:suspend"]));
    is_noticed(MAY, |log| comes_back(log, &["organization:read", "member:add"]));
}

#[test]
fn a_user_is_bound_to_one_organization() {
    let bind = |log: &mut Log, organization: &str, actor: &str| {
        log.command().add(
            OPS,
            organization,
            &format!("mem_{organization}_usr_eve"),
            "MemberJoined",
            joined("usr_eve", "guest", None),
        );
        log.add(
            actor,
            organization,
            &format!("mem_{organization}_usr_eve"),
            "MemberBound",
            json!({"user_id": "usr_eve"}),
        );
    };
    holds(|log| {
        log.roomy();
        bind(log, "org_a", OPS);
        log.member(ADA, "usr_eve", "MemberRemoved", &["guest"]);
        bind(log, "org_b", OPS);
    });
    is_noticed("a slug, external id or identity has one holder", |log| {
        log.roomy();
        bind(log, "org_a", OPS);
        bind(log, "org_b", OPS);
    });
}

#[test]
fn what_was_invited_could_be_invited() {
    let invite = |log: &mut Log, by: &str, role: &str| {
        log.roomy().invite("inv_2", "other").last().actor = by.into();
        log.last().body["invited_by"] = json!(by);
        log.last().body["roles"] = json!([role]);
    };
    let accept = |log: &mut Log| {
        let body = json!({"email_claim": "other", "user_id": "usr_eve", "membership_id": "mem_org_a_usr_eve", "seat_freed": false});
        let role = log.find("MemberInvited").body["roles"][0].as_str().unwrap_or_default().to_owned();
        log.command().add("user:usr_eve", "org_a", "inv_2", "InvitationAccepted", body);
        log.add("user:usr_eve", "org_a", "mem_org_a_usr_eve", "MemberJoined", joined("usr_eve", &role, Some("inv_2")));
    };
    holds(|log| {
        log.command().roles(ADA, "usr_bea", &["admin"], &["member"]);
        invite(log, BEA, "member");
        accept(log);
    });
    is_noticed(MAY, |log| invite(log, BEA, "member"));
    is_noticed(MAY, |log| {
        log.command().roles(ADA, "usr_bea", &["admin"], &["member"]);
        invite(log, BEA, "owner");
    });
    is_noticed("an invitation says by whom it is", |log| log.find("MemberInvited").body["invited_by"] = json!(OPS));
    // A removed member's invitations count where the policy keeps them.
    let removed = |log: &mut Log| {
        log.command().roles(ADA, "usr_bea", &["admin"], &["member"]);
        invite(log, BEA, "member");
        log.member(ADA, "usr_bea", "MemberRemoved", &["admin"]);
        accept(log);
    };
    is_noticed(GIVEN, removed);
    holds(|log| {
        log.settings("org_a", ADA, "policies", json!({"invitationsOfRemovedMembers": "keep"}));
        removed(log);
    });
    // A token that was revoked gave nothing.
    is_noticed(GIVEN, |log| {
        log.find("TokenCreated").body["permissions"] = json!([
            "organization:read",
            "member:read",
            "member:invite",
            "project:read",
            "project:create",
            "project:update"
        ]);
        invite(log, TOKEN, "member");
        log.command().revoke_token(ADA, "tok_1");
        accept(log);
    });
}

#[test]
fn users_are_let_in_and_shut_out_by_others() {
    holds(|log| {
        log.register("usr_eve").add("user:usr_eve", "", "usr_eve", "UserHeld", json!({"user_state": "PENDING"}));
        log.user_is(OPS, "usr_eve", "UserApproved", "ACTIVE", "").user_is(
            OPS,
            "usr_eve",
            "UserRevoked",
            "REVOKED",
            "ACTIVE",
        );
        log.user_is(OPS, "usr_eve", "UserReinstated", "ACTIVE", "").user_is(
            OPS,
            "usr_eve",
            "UserErased",
            "ERASED",
            "ACTIVE",
        );
        // The same person is somebody new.
        log.register("usr_new").last().body["identity_claim"] = json!("identity of usr_eve");
    });
    is_noticed(FITS, |log| {
        log.user_is(OPS, "usr_ada", "UserApproved", "ACTIVE", "");
    });
    is_noticed(MAY, |log| {
        log.user_is(ADA, "usr_ada", "UserRevoked", "REVOKED", "ACTIVE");
    });
    is_noticed(MAY, |log| {
        log.user_is("operator:usr_ada", "usr_ada", "UserErased", "ERASED", "ACTIVE");
    });
    // Somebody who was shut out long ago does nothing.
    is_noticed(MAY, |log| {
        log.user_is(OPS, "usr_ada", "UserRevoked", "REVOKED", "ACTIVE").command().command();
        log.command().roles(ADA, "usr_bea", &["admin"], &["member"]);
    });
}

#[test]
fn an_erasure_ends_memberships_in_any_status() {
    let erase = |log: &mut Log| {
        log.register("usr_bea").user_is(OPS, "usr_bea", "UserErased", "ERASED", "ACTIVE");
    };
    holds(|log| {
        erase(log);
        log.delete_organization().member(OPS, "usr_bea", "MemberRemoved", &["member"]);
    });
    is_noticed(STATUS, |log| {
        log.delete_organization().member(OPS, "usr_bea", "MemberRemoved", &["member"]);
    });
    let (model, _) = {
        let mut log = Log::good();
        erase(&mut log);
        log.judged()
    };
    let judged = |keys: &[&str], tombstones: &[&str]| {
        let own = |list: &[&str]| list.iter().map(|id| (*id).to_owned()).collect();
        let tables = tables::all().map(|table| (table.name, (table.rows)(&model))).collect();
        let found = Found { tables, keys: own(keys), tombstones: own(tombstones), ..Found::default() };
        let mut findings = Findings::default();
        tables::check(&model, &found, &mut findings);
        findings.checks()
    };
    assert_eq!(judged(&["usr_ada"], &["usr_bea"]), Vec::<&str>::new());
    assert_eq!(judged(&["usr_bea"], &["usr_bea"]), ["an erasure destroys the person's key"]);
    assert_eq!(judged(&[], &[]), ["an erasure leaves a tombstone"]);
}

#[test]
fn what_is_held_is_not_purged() {
    let held = |log: &mut Log, name: &str| {
        log.command().add(OPS, "org_a", "org_a", name, json!({"held_since": "2026-01-01T00:00:00Z"}));
    };
    let purged = "nothing that is held is purged, and nobody in it erased";
    holds(|log| {
        held(log, "OrgLegalHoldSet");
        held(log, "OrgLegalHoldReleased");
        log.delete_organization().purge();
    });
    is_noticed(purged, |log| {
        held(log, "OrgLegalHoldSet");
        log.delete_organization().purge();
    });
    is_noticed(purged, |log| {
        held(log, "OrgLegalHoldSet");
        log.command().add(OPS, "org_a", "inv_1", "InviteeErased", json!({"email_claim": "digest"}));
    });
    is_noticed(FITS, |log| {
        held(log, "OrgLegalHoldReleased");
    });
    is_noticed(MAY, |log| {
        held(log, "OrgLegalHoldSet");
        log.last().actor = ADA.into();
    });
    is_noticed("nothing is done in a purged organization", |log| {
        log.delete_organization().purge();
        held(log, "OrgLegalHoldSet");
    });
}

#[test]
fn nothing_but_places_is_left_of_what_was_pruned() {
    let prune = |log: &mut Log| {
        log.delete_organization().purge();
        let body = json!({"kept_days": 1, "created_at": "2026-01-01T00:00:00Z"});
        log.command().add("system", "org_a", "org_a", "OrgPruned", body);
    };
    let forget = |log: &mut Log| {
        let of_a = log.events.iter_mut().filter(|event| event.organization.as_deref() == Some("org_a"));
        for event in of_a.filter(|event| !event.name.starts_with("OrgPurged") && event.name != "OrgPruned") {
            (event.name, event.body, event.actor) = ("Pruned".into(), json!({}), "system".into());
            (event.request, event.transaction) = (None, 9_999);
            event.command = "00000000-0000-0000-0000-000000000000".into();
        }
    };
    holds(|log| {
        prune(log);
        forget(log);
    });
    is_noticed("only what the log calls pruned loses its content", forget);
}

#[test]
fn endpoints_are_what_their_owners_chose() {
    let changed = |url: &str| {
        let terms = |prefix: &str, url: &str| {
            json!({format!("{prefix}url"): url, format!("{prefix}about"): null, format!("{prefix}event_patterns"): ["*"],
                   format!("{prefix}ordering"): "PARALLEL", format!("{prefix}content"): "FULL",
                   format!("{prefix}rate_per_second"): null})
        };
        let mut body = terms("", "https://receiver.test/else");
        body.as_object_mut().unwrap().extend(terms("previous_", url).as_object().unwrap().clone());
        body
    };
    holds(|log| {
        log.webhook(ADA, "WebhookChanged", changed("https://receiver.test/a/b"));
        log.webhook(
            ADA,
            "WebhookSecretRotated",
            json!({"secret_number": 2, "previous_secret_until": "2026-01-02T00:00:00Z"}),
        );
        log.webhook("system", "WebhookFailing", json!({"failing_since": "2026-01-01T00:00:00Z"}));
        log.webhook("system", "WebhookDisabled", json!({"automatic": true, "reason": "gone"}));
        log.webhook(ADA, "WebhookEnabled", json!({})).webhook(ADA, "WebhookTested", json!({}));
        log.webhook(ADA, "WebhookReplayed", json!({"replayed_after": 1, "replayed_until": 3}));
        log.webhook(ADA, "WebhookDeleted", json!({"url": "https://receiver.test/else"}));
    });
    is_noticed(FITS, |log| {
        log.webhook(ADA, "WebhookChanged", changed("https://receiver.test/other"));
    });
    is_noticed(FITS, |log| {
        log.webhook(
            ADA,
            "WebhookSecretRotated",
            json!({"secret_number": 3, "previous_secret_until": "2026-01-02T00:00:00Z"}),
        );
    });
    is_noticed(FITS, |log| {
        log.webhook(ADA, "WebhookEnabled", json!({}));
    });
    is_noticed(FITS, |log| {
        log.webhook(ADA, "WebhookDisabled", json!({"automatic": false})).webhook(ADA, "WebhookTested", json!({}));
    });
    is_noticed("an endpoint says whether the service disabled it", |log| {
        log.webhook(ADA, "WebhookDisabled", json!({"automatic": true}));
    });
    is_noticed(MAY, |log| {
        log.webhook(BEA, "WebhookTested", json!({}));
    });
    is_noticed(MAY, |log| {
        // Nobody has sent what they may not read.
        log.role(ADA, "hooks", &["organization:read", "webhook:read", "webhook:manage"]).command();
        log.roles(ADA, "usr_bea", &["hooks"], &["member"]).webhook(
            BEA,
            "WebhookReplayed",
            json!({"replayed_after": 1, "replayed_until": 3}),
        );
    });
    is_noticed(STATUS, |log| {
        log.block().webhook(OPS, "WebhookTested", json!({}));
    });
}

#[test]
fn another_organization_has_other_rights() {
    is_noticed(MAY, |log| {
        log.command().add(CYD, "org_a", "org_a", "OrgRenamed", json!({"name": "x", "previous_name": "one"}));
    });
    is_noticed(MAY, |log| {
        log.command().add(TOKEN, "org_b", "org_b", "OrgRenamed", json!({"name": "x", "previous_name": "two"}));
    });
}
