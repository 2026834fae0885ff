//! Given files, what is read and what is left out.

#![allow(clippy::unwrap_used)]

use super::*;

/// A folder of files that is gone when the test ends.
fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    folder
}

fn imported(files: &[(&str, &str)]) -> Folder {
    read(folder(files).path()).unwrap()
}

/// One organization `acme` with this `org.yaml` and this file of teams.
fn acme(organization: &str, teams: &str) -> (Organization, Vec<String>) {
    let mut all = imported(&[("acme/org.yaml", organization), ("acme/core/teams.yaml", teams)]);
    (all.organizations.remove(0), all.skipped.iter().map(Skipped::to_string).collect())
}

fn logins(organization: &Organization) -> Vec<(&str, bool)> {
    organization.members.iter().map(|member| (member.login.as_str(), member.owner)).collect()
}

fn slugs(organization: &Organization) -> Vec<&str> {
    organization.projects.iter().map(|project| project.slug.as_str()).collect()
}

const TEAMS: &str = "teams:\n  core:\n    members: [bob]\n    repos: {website: write}\n";

#[test]
fn reads_the_real_organizations() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data/kubernetes-org/config");
    if !root.is_dir() {
        eprintln!("not run: the data of the Kubernetes project is not at {}", root.display());
        return;
    }
    let folder = read(&root).unwrap();
    let members = || folder.organizations.iter().flat_map(|organization| &organization.members);
    let projects = || folder.organizations.iter().flat_map(|organization| &organization.projects);
    assert_eq!(folder.organizations.len(), 8);
    assert_eq!(members().count(), 2_666);
    assert_eq!(members().map(|member| &member.subject).collect::<BTreeSet<_>>().len(), 1_509);
    assert_eq!(members().filter(|member| member.owner).count(), 87);
    // Two organizations have a `website`: 328 repositories with 327 names.
    assert_eq!(projects().count(), 328);
    assert_eq!(projects().map(|project| &project.name).collect::<BTreeSet<_>>().len(), 327);
    let skipped: Vec<String> = folder.skipped.iter().map(Skipped::to_string).collect();
    assert_eq!(skipped.len(), 14, "{skipped:#?}");
    assert!(skipped.iter().any(|line| line.starts_with("kubernetes: 2")), "{skipped:#?}");
    assert_eq!(folder, read(&root).unwrap());
}

#[test]
fn takes_admins_as_owners_and_each_person_once() {
    let (acme, _) = acme("admins: [Ann, dora]\nmembers: [ann, bob, BOB, ' carl ', Dora]\n", TEAMS);
    assert_eq!(logins(&acme), [("Ann", true), ("bob", false), ("carl", false), ("dora", true)]);
}

#[test]
fn spells_a_person_alike_in_every_organization() {
    let all = imported(&[("a/org.yaml", "admins: [AnnA]"), ("b/org.yaml", "admins: [anna]")]);
    assert_eq!(logins(&all.organizations[1]), [("AnnA", true)]);
    assert_eq!(all.organizations[1].members[0].subject, "anna");
}

#[test]
fn takes_name_email_and_identity_of_an_organization() {
    let files = [("AcMe/org.yaml", "name: ' Acme Inc '\nbilling_email: a@b.example\nadmins: [ann]")];
    let acme = imported(&files).organizations.remove(0);
    assert_eq!((acme.external_id.as_str(), acme.slug.as_str()), ("github.com/acme", "acme"));
    assert_eq!((acme.name.as_str(), acme.contact_email.as_deref()), ("Acme Inc", Some("a@b.example")));
}

#[test]
fn keeps_logins_that_yaml_takes_for_something_else() {
    let (acme, skipped) = acme("admins: [1234, 1e5, 'null', on, 0x1f]\nmembers: [007, true]", TEAMS);
    let expected = [("007", false), ("0x1f", true), ("1234", true), ("1e5", true), ("null", true), ("on", true)];
    assert_eq!(logins(&acme)[..6], expected);
    assert!(!skipped.iter().any(|line| line.contains("no GitHub login")), "{skipped:#?}");
}

#[test]
fn leaves_out_bad_logins_and_says_so() {
    let list = format!("admins: [ann]\nmembers: ['', null, a b, -x, ümit, \"e\\el\", {}]", "x".repeat(40));
    let (acme, skipped) = acme(&list, TEAMS);
    assert_eq!(logins(&acme), [("ann", true)]);
    assert_eq!(skipped.iter().filter(|line| line.contains("no GitHub login")).count(), 7, "{skipped:#?}");
    assert!(skipped.iter().all(|line| !line.contains('\u{1b}')));
}

#[test]
fn names_a_login_that_only_teams_have_once() {
    let teams = "teams:\n  a: {members: [zoe, ann]}\n  b: {maintainers: [ZOE]}\n";
    let (acme, skipped) = acme("admins: [ann]", teams);
    assert_eq!(logins(&acme), [("ann", true)]);
    let line = "acme/core/teams.yaml: teams.a.members: zoe: a member of this team (and 1 more teams), \
                but not of the organization";
    assert!(skipped.iter().any(|found| found == line), "{skipped:#?}");
}

#[test]
fn takes_the_repositories_of_nested_teams_with_their_permissions() {
    let teams = "teams:\n  outer:\n    repos: {Website: admin}\n    teams:\n      inner:\n        \
                 repos: {website: read, api: write}\n";
    let (acme, skipped) = acme("admins: [ann]", teams);
    assert_eq!(slugs(&acme), ["api", "website"]);
    let expected = serde_json::json!({"repository": "acme/Website", "teams": {"inner": "read", "outer": "admin"}});
    assert_eq!(acme.projects[1].metadata(), expected);
    assert!(skipped.iter().any(|line| line.starts_with("acme: 2 teams with 0 memberships")), "{skipped:#?}");
}

#[test]
fn tolerates_nulls_and_unknown_keys() {
    let (acme, skipped) = acme(
        "admins: [ann]\nmembers:\nteams:\ndefault_repository_permission: read\nfuture: {a: [1]}",
        "teams:\n  empty:\n  odd: {members: , repos: , colour: red}\n",
    );
    assert_eq!(logins(&acme), [("ann", true)]);
    let line = "acme/org.yaml: default_repository_permission, future: tenancy has no place for these";
    assert!(skipped.iter().any(|found| found == line), "{skipped:#?}");
}

#[test]
fn makes_slugs_by_a_rule_that_looks_at_the_name_alone() {
    let slug = |name: &str| slug_of(name).unwrap();
    assert_eq!(slug("Cluster_API.v2"), "cluster_api.v2");
    assert_eq!(slug(".github"), "dot-github");
    assert_eq!(slug("_x-"), "underscore-x-dash");
    assert_eq!(slug(&"a".repeat(63)), "a".repeat(63));
    let long = [slug(&"a".repeat(64)), slug(&"a".repeat(65)), slug("..a"), slug("...a")];
    assert_eq!(long.iter().collect::<BTreeSet<_>>().len(), 4);
    assert!(long.iter().all(|slug| slug.len() <= SLUG_CHARS_MAX));
    // Pinned, because a changed slug would import everything a second time.
    assert_eq!(slug("..a"), "dot-a-f7d98717ec4b8e24");
    for bad in ["", ".", "..", "-", "a b", "a/b", "ü", &"a".repeat(101)] {
        assert_eq!(slug_of(bad), None, "{bad}");
    }
}

#[test]
fn leaves_out_a_repository_whose_slug_another_has_by_nature() {
    let (acme, skipped) = acme("admins: [ann]", "teams: {t: {repos: {.github: read, dot-github: read, a b: read}}}");
    assert_eq!(slugs(&acme), ["dot-github"]);
    assert_eq!(acme.projects[0].name, "dot-github");
    let told = |text: &str| skipped.iter().any(|line| line.contains(text));
    assert!(told("repository acme/.github: its slug dot-github is that of acme/dot-github"), "{skipped:#?}");
    assert!(told("\"a b\": GitHub has no such names"), "{skipped:#?}");
}

#[test]
fn bounds_what_a_project_keeps_of_its_teams() {
    let teams: String = (0..1_000).map(|n| format!("  team-{n}: {{repos: {{a: write}}}}\n")).collect();
    let (acme, skipped) = acme("admins: [ann]", &format!("teams:\n{teams}"));
    assert!(acme.projects[0].metadata().to_string().len() < 2 * TEAMS_BYTES_MAX);
    assert!(skipped.iter().any(|line| line.starts_with("acme/a: permissions of ")), "{skipped:#?}");
}

/// Each of these costs the file, with a reason, and nothing else.
#[test]
fn leaves_out_files_that_cannot_be_used() {
    let deep = format!("teams: {}1{}", "{a: {teams: ".repeat(40), "}}".repeat(40));
    let indented = |n: usize| format!("{0}teams:\n{0} a:\n", "  ".repeat(n));
    let deep_block: String = (0..40).map(indented).collect();
    let deeper = format!("teams: {}", "[".repeat(100_000));
    let bomb: String =
        (1..30).map(|n| format!("x{n}: &a{n} [{0}]\n", vec![format!("*a{}", n - 1); 9].join(","))).collect();
    let bomb = format!("x0: &a0 [x]\n{bomb}teams: {{t: {{members: *a29}}}}");
    let large = format!("teams: {{}}\n#{}", "x".repeat(1 << 20));
    for (text, why) in [
        ("", "it is empty"),
        ("# nothing\n", "there is nothing in it"),
        ("teams: [", "does not parse"),
        ("teams: 3", "does not parse"),
        ("teams: {t: {members: {a: b}}}", "does not parse"),
        ("teams: {t: {}}\nteams: {u: {}}", "duplicate"),
        ("teams: {t: {}, t: {}}", "duplicate"),
        ("---\nteams: {}\n---\nteams: {}\n", "does not parse"),
        ("other: 1", "there is no `teams` in it"),
        (deep.as_str(), "does not parse"),
        (deep_block.as_str(), "does not parse"),
        (deeper.as_str(), "does not parse"),
        (bomb.as_str(), "does not parse"),
        (large.as_str(), "larger than 1048576 bytes"),
    ] {
        let (acme, skipped) = acme("admins: [ann]", text);
        assert_eq!(logins(&acme), [("ann", true)]);
        let start: String = text.chars().take(40).collect();
        assert!(skipped.iter().any(|line| line.contains(why)), "{start}: {skipped:#?}");
        assert!(skipped.iter().all(|line| line.len() < 400 && !line.contains('\n')), "{start}: {skipped:#?}");
    }
}

#[test]
fn leaves_out_text_that_is_no_utf8() {
    let folder = folder(&[("acme/org.yaml", "admins: [ann]")]);
    fs::write(folder.path().join("acme/teams.yaml"), b"teams: \xff").unwrap();
    assert!(read(folder.path()).unwrap().skipped[0].why.contains("not UTF-8"));
}

#[test]
fn leaves_out_organizations_that_cannot_be_used_and_keeps_the_others() {
    let all = imported(&[
        ("good-dash/org.yaml", "admins: [ann]"),
        ("good-/org.yaml", "admins: [ann]"),
        ("no-owner/org.yaml", "members: [ann]"),
        ("no-file/teams.yaml", TEAMS),
        ("bad_name!/org.yaml", "admins: [ann]"),
        ("broken/org.yaml", "admins: ann"),
        ("loose.yaml", "orgs: {}"),
        (".git/org.yaml", "admins: [ann]"),
        ("README.md", ""),
    ]);
    assert_eq!(all.organizations.len(), 1);
    let why: Vec<&str> = all.skipped.iter().map(|skipped| skipped.place.as_str()).collect();
    let expected = ["bad_name!", "broken/org.yaml", "good-dash", "loose.yaml", "no-file", "no-owner/org.yaml"];
    assert_eq!(why, expected, "{:#?}", all.skipped);
}

#[cfg(unix)]
#[test]
fn follows_no_link_and_opens_no_pipe() {
    let outside = folder(&[("org.yaml", "admins: [eve]"), ("teams.yaml", TEAMS)]);
    let inside = folder(&[("acme/org.yaml", "admins: [ann]"), ("other/x", "")]);
    let link = |from: &str, to: &str| {
        std::os::unix::fs::symlink(outside.path().join(from), inside.path().join(to)).unwrap();
    };
    link("", "linked");
    link("teams.yaml", "acme/teams.yaml");
    link("", "acme/more");
    link("org.yaml", "other/org.yaml");
    std::os::unix::net::UnixListener::bind(inside.path().join("acme/socket.yaml")).unwrap();
    let all = read(inside.path()).unwrap();
    assert_eq!(all.organizations.len(), 1);
    assert_eq!(all.skipped.len(), 5, "{:#?}", all.skipped);
    assert!(all.organizations[0].projects.is_empty());
}

#[test]
fn says_what_is_wrong_with_a_folder_as_a_whole() {
    let error = |folder: &Path| read(folder).unwrap_err().to_string();
    let one = folder(&[("org.yaml", "admins: [ann]")]);
    assert!(error(one.path()).contains("give the folder above it"));
    assert!(error(&one.path().join("org.yaml")).contains("is not a folder"));
    assert!(error(&one.path().join("absent")).contains("cannot be read"));
    assert!(error(folder(&[]).path()).contains("no folder with an org.yaml"));
    assert!(error(folder(&[("config/acme/org.yaml", "admins: [ann]")]).path()).contains("/config"));
    let broken = folder(&[("a/org.yaml", "admins: ["), ("b/org.yaml", "")]);
    assert!(error(broken.path()).contains("a/org.yaml: file: it does not parse"), "{}", error(broken.path()));
}
