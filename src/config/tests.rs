#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::*;

/// A file, an environment and flags, as one test wants them.
#[derive(Default)]
struct Given {
    file: Option<String>,
    variables: Vec<(&'static str, &'static str)>,
    flags: Vec<(&'static str, &'static str)>,
}

impl Given {
    fn file(text: impl Into<String>) -> Self {
        Self { file: Some(text.into()), ..Self::default() }
    }

    fn variables<const N: usize>(variables: [(&'static str, &'static str); N]) -> Self {
        Self::default().and(variables)
    }

    fn and<const N: usize>(mut self, variables: [(&'static str, &'static str); N]) -> Self {
        self.variables.extend(variables);
        self
    }

    fn flag(mut self, key: &'static str, value: &'static str) -> Self {
        self.flags.push((key, value));
        self
    }

    fn load(&self) -> Result<Loaded, Error> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tenancy.toml");
        let mut flags = Flags::new(self.file.as_ref().map(|_| path.clone()));
        if let Some(text) = &self.file {
            std::fs::write(&path, text).unwrap();
        }
        for (key, value) in &self.flags {
            flags = flags.with(key, Some(value));
        }
        load_from(&flags, &surroundings(&self.variables))
    }

    fn config(&self) -> Config {
        self.load().unwrap().config
    }

    fn error(&self) -> String {
        self.load().unwrap_err().to_string()
    }
}

fn surroundings(variables: &[(&str, &str)]) -> Surroundings {
    let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Surroundings { variables, root: false, home: Some("/home/ann".into()) }
}

const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

#[test]
fn needs_nothing() {
    let config = Given::default().config();
    let expected = Config { data_dir: config.data_dir.clone(), ..Config::default() };
    assert_eq!(config, expected);
    assert_eq!(config.listen.to_string(), "127.0.0.1:8080");
    assert!(config.builtin_issuer());
    assert!(config.default_plan().limits.is_empty());
}

#[test]
fn lets_later_sources_win_and_remembers_which_did() {
    let file = "log = 'debug'\nlisten = '127.0.0.1:1'\n[limits]\ndepth_max = 5\naliases_max = 6\n";
    let given = || {
        Given::file(file)
            .and([("TENANCY_LISTEN", "127.0.0.1:2"), ("TENANCY_LIMITS__ALIASES_MAX", "7")])
            .flag("listen", "127.0.0.1:3")
    };
    let loaded = given().load().unwrap();
    assert_eq!(loaded.config.listen.port(), 3);
    assert_eq!(loaded.source("listen"), Source::Flag { name: "--listen".to_owned() });
    assert_eq!(loaded.config.limits.aliases_max, 7);
    assert_eq!(loaded.source("limits.aliases_max").to_string(), "environment: TENANCY_LIMITS__ALIASES_MAX");
    assert_eq!(loaded.config.limits.depth_max, 5);
    assert!(loaded.source("limits.depth_max").to_string().ends_with("tenancy.toml: limits.depth_max"));
    assert_eq!(loaded.config.log, "debug");
    assert_eq!(loaded.source("limits.tokens_max"), Source::Default);
}

#[test]
fn takes_the_file_that_the_environment_names() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("named.toml");
    std::fs::write(&path, "log = 'trace'").unwrap();
    let found = load_from(&Flags::default(), &surroundings(&[("TENANCY_CONFIG", path.to_str().unwrap())]));
    assert_eq!(found.unwrap().config.log, "trace");
    let error = Given::variables([("TENANCY_CONFIG", "/nowhere/tenancy.toml")]).error();
    assert!(error.contains("/nowhere/tenancy.toml (environment: TENANCY_CONFIG) cannot be used"), "{error}");
}

#[test]
fn takes_the_database_by_both_names() {
    for name in ["DATABASE_URL", "TENANCY_DATABASE__URL"] {
        let loaded =
            Given::file("[database]\nurl = 'postgres://file/x'").and([(name, "postgres://h/db")]).load().unwrap();
        assert_eq!(loaded.config.database.url.as_ref().unwrap().expose(), "postgres://h/db");
        assert_eq!(loaded.source("database.url"), Source::Environment { name: name.to_owned() });
    }
    let two = |one, other| Given::variables([("DATABASE_URL", one), ("TENANCY_DATABASE__URL", other)]);
    assert!(two("postgres://h/db", "postgres://h/db").load().is_ok());
    let error = two("postgres://u:hunter2@h/a", "postgres://h/b").error();
    assert!(error.contains("both set") && !error.contains("hunter2"), "{error}");
}

#[test]
fn every_key_can_be_set_from_the_environment() {
    for key in sources::keys() {
        let variable = Source::variable(key);
        let error = load_from(&Flags::default(), &surroundings(&[(variable.as_str(), "\u{7}")])).map(|_| ());
        let message = error.map_or_else(|error| error.to_string(), |()| "accepted".to_owned());
        let accepts_anything = ["data_dir", "database.postgres_bin_dir", "http.persisted_documents"].contains(&key);
        assert!(accepts_anything || message.contains(&format!("{variable}: {key} cannot be")), "{key}: {message}");
    }
}

#[test]
fn takes_an_address_to_fetch_from_and_repeats_no_password() {
    let given = |address: &str| Given::file(format!("[database]\npostgres_fetch_url = '{address}'"));
    let loaded = given("https://mirror.example.com/postgresql/").load().unwrap();
    assert_eq!(loaded.config.database.postgres_fetch_url.as_str(), "https://mirror.example.com/postgresql");
    for address in ["mirror.example.com", "file:///etc", "https://", "http://h/a b", "https://me:hunter2@h/x"] {
        let error = given(address).error();
        assert!(error.contains("database.postgres_fetch_url") && !error.contains("hunter2"), "{error}");
    }
}

#[test]
fn suggests_the_nearest_name_for_an_unknown_one() {
    for (file, nearest) in [
        ("lisen = '127.0.0.1:1'", "listen"),
        ("[limits]\ndept_max = 3", "limits.depth_max"),
        ("depth_max = 3", "limits.depth_max"),
        ("[limit]\ndepth_max = 3", "limits"),
        ("[plans.pro.limits]\nmember = 3", "plans.pro.limits.members"),
        ("[plans.pro]\nmembers = 3", "plans.pro.limits.members"),
    ] {
        let error = Given::file(file).error();
        assert!(error.ends_with(&format!("did you mean {nearest}?")), "{file}: {error}");
    }
    for (variable, nearest) in [
        ("TENANCY_LISTN", "TENANCY_LISTEN"),
        ("TENANCY_LIMITS_BODY_BYTES_MAX", "TENANCY_LIMITS__BODY_BYTES_MAX"),
        ("TENANCY_BODY_BYTES_MAX", "TENANCY_LIMITS__BODY_BYTES_MAX"),
        ("TENANCY_DATABASE_URL", "TENANCY_DATABASE__URL"),
        ("TENANCY_CONFIGS", "TENANCY_CONFIG"),
    ] {
        let error = load_from(&Flags::default(), &surroundings(&[(variable, "1")])).unwrap_err().to_string();
        assert!(error.ends_with(&format!("did you mean {nearest}?")), "{variable}: {error}");
        assert!(error.starts_with(&format!("environment: {variable}: there is no such setting\n")), "{error}");
    }
    let error = Given::default().flag("listne", "x").error();
    assert_eq!(error, "flag: --listne: there is no such setting\ndid you mean --listen?");
    assert!(Given::file("colour = 'red'").error().contains("`tenancy config` prints all settings"));
}

#[test]
fn passes_over_what_kubernetes_sets_for_a_service_of_this_name() {
    let variables = [
        ("TENANCY_SERVICE_HOST", "10.0.0.1"),
        ("TENANCY_SERVICE_PORT_HTTP", "80"),
        ("TENANCY_PORT", "tcp://10.0.0.1:80"),
        ("TENANCY_PORT_80_TCP_ADDR", "10.0.0.1"),
        ("TENANCY_DB_PORT_5432_TCP", "tcp://10.0.0.2:5432"),
    ];
    assert!(Given::variables(variables).load().is_ok());
    for key in sources::keys() {
        assert!(!["_PORT", "_SERVICE_HOST"].iter().any(|end| Source::variable(key).ends_with(end)), "{key}");
    }
}

#[test]
fn refuses_bad_values_with_source_value_and_what_would_be_right() {
    for (name, value, message) in [
        ("TENANCY_LISTEN", "8080", "listen cannot be \"8080\"\nset it to an address and a port"),
        ("TENANCY_LOG_FORMAT", "xml", "log_format cannot be \"xml\"\nset it to \"text\" or \"json\""),
        ("TENANCY_DATA_DIR", "~/data", "\"~\" is not unfolded here"),
        ("TENANCY_HTTP__GRAPHIQL", "yes", "http.graphiql cannot be \"yes\"\nset it to true or false"),
        ("TENANCY_LIMITS__DEPTH_MAX", "2", "limits.depth_max cannot be 2\nset it to a whole number from 3 to 100"),
        ("TENANCY_LIMITS__DEPTH_MAX", "101", "from 3 to 100"),
        ("TENANCY_LIMITS__DEPTH_MAX", "-1", "from 3 to 100"),
        ("TENANCY_LIMITS__DEPTH_MAX", "9223372036854775808", "from 3 to 100"),
        ("TENANCY_LIMITS__DEPTH_MAX", "1.5", "from 3 to 100"),
        ("TENANCY_DATABASE__PARTITIONS", "1025", "from 1 to 1024"),
        ("TENANCY_ACCESS__OPERATORS", "ann@b.example,bob", "each entry is an e-mail address or \"issuer|subject\""),
        ("TENANCY_ORGANIZATIONS__DEFAULT_PLAN", "gold", "set it to the name of a plan (free)"),
        ("TENANCY_ORGANIZATIONS__INVITATION_HOURS_DEFAULT", "721", "at most organizations.invitation_hours_max, 720"),
        ("TENANCY_LIMITS__AT_LEAST_WAIT_MS_MAX", "15001", "at most limits.request_timeout_ms, 15000"),
        ("TENANCY_LIMITS__BATCH_COMMANDS_MAX", "4097", "at most limits.queue_commands_max, 4096"),
        (
            "TENANCY_LIMITS__REQUEST_TIMEOUT_MS",
            "4999",
            "limits.request_timeout_ms cannot be 4999\nset it to at least limits.at_least_wait_ms_max, 5000",
        ),
        ("TENANCY_PLANS__FREE__LIMITS__MEMBERS", "0", "plans.free.limits.members cannot be 0"),
    ] {
        let error = Given::variables([(name, value)]).error();
        assert!(error.starts_with(&format!("environment: {name}: ")), "{error}");
        assert!(error.contains(message), "{error}");
        assert_eq!(error.lines().count(), 2, "{error}");
    }
}

#[test]
fn accepts_numbers_at_their_limits() {
    for section in settings::SECTIONS {
        for key in section.keys {
            let default = Config::default().shown().remove(key.path).flatten();
            let Some(toml::Value::Integer(default)) = default else {
                continue;
            };
            let (smallest, largest) = key.limits.expect("every number has limits");
            assert!((smallest..=largest).contains(&u64::try_from(default).unwrap()), "{}", key.path);
            for (number, fits) in [(smallest, true), (largest, true), (largest + 1, false)] {
                let variable = (Source::variable(key.path), number.to_string());
                let error = load_from(&Flags::default(), &surroundings(&[(&variable.0, &variable.1)])).err();
                let error = error.map(|error| error.to_string()).filter(|error| error.contains("whole number"));
                assert_eq!(error.is_none(), fits, "{} = {number}: {error:?}", key.path);
            }
        }
    }
}

#[test]
fn refuses_files_that_are_no_configuration() {
    let secret = Given::file("log = 'info'\n[secrets]\nmaster_key = \"hunter2\nx").error();
    assert!(secret.contains("line 4: ") && !secret.contains("hunter2"), "{secret}");
    assert!(Given::file("database = 'postgres://h/d'").error().contains("set it to a table, under [database]"));
    assert!(Given::file("log = 'a'\nlog = 'b'").error().contains("line 2: duplicate key"));
    assert!(Given::file("[plans.Gold]").error().contains("plans.Gold cannot be Gold\nset it to a name of 1–40"));
    assert!(Given::file("listen = 8080").error().contains("listen cannot be 8080"));
    assert!(Given::file("[limits]\ndepth_max = '5'").error().contains("limits.depth_max cannot be \"5\""));
    assert!(Given::file("#".repeat(1 << 21)).error().contains("larger than 1048576 bytes"));
}

#[test]
fn treats_an_empty_variable_as_not_set() {
    let config =
        Given::file("log = 'debug'").and([("TENANCY_LOG", ""), ("DATABASE_URL", ""), ("TENANCY_X", "")]).config();
    assert_eq!(config.log, "debug");
    assert_eq!(config.database.url, None);
}

#[test]
fn hides_secrets_everywhere() {
    let url = "postgres://ann:hunter2/@x@db.example:5432/tenancy?sslpassword=hunter2&sslmode=require";
    let loaded = Given::variables([("DATABASE_URL", url), ("TENANCY_SECRETS__MASTER_KEY", KEY)]).load().unwrap();
    assert_eq!(loaded.config.secrets.master_key.as_ref().unwrap().expose()[31], 31);
    let report = loaded.report();
    let expected = "url = \"postgres://ann:***@db.example:5432/tenancy?sslpassword=***&sslmode=require\"";
    assert!(report.contains(expected), "{report}");
    for text in [report, format!("{loaded:?}")] {
        assert!(!text.contains("hunter2") && !text.contains(KEY) && !text.contains("30, 31"), "{text}");
    }
    for (name, value) in [("DATABASE_URL", "mysql://hunter2@h"), ("TENANCY_SECRETS__MASTER_KEY", "hunter2")] {
        let error = Given::variables([(name, value)]).error();
        assert!(!error.contains("hunter2") && error.contains(name), "{error}");
    }
}

#[test]
fn reports_every_value_with_its_source_as_toml() {
    let given = Given::file("[plans.pro.limits]\nmembers = 10").and([("TENANCY_LOG", "warn")]);
    let report = given.load().unwrap().report();
    let line = |start: &str| report.lines().find(|line| line.starts_with(start)).unwrap().to_owned();
    assert!(line("log = ").ends_with("# environment: TENANCY_LOG"), "{report}");
    assert!(line("listen = ").ends_with("# default"));
    assert!(line("members = 10").ends_with("tenancy.toml: plans.pro.limits.members"));
    assert!(line("# master_key is not set").ends_with("# default"));
    // What is printed can be a configuration file again.
    let again = Given::file(report.clone()).config();
    assert_eq!(again, given.config());
}

#[test]
fn reads_plans_from_the_file_and_the_environment() {
    let config =
        Given::file("[organizations]\ndefault_plan = 'pro_2'\n[plans.pro_2.limits]\nmembers = 10\n[plans.empty]")
            .and([("TENANCY_PLANS__PRO_2__LIMITS__PROJECTS", "5"), ("TENANCY_PLANS__NEW__LIMITS__PROJECTS", "0")])
            .config();
    let names: Vec<&str> = config.plans.keys().map(PlanName::as_str).collect();
    assert_eq!(names, ["empty", "free", "new", "pro_2"]);
    assert_eq!(config.default_plan().limits, BTreeMap::from([("members".to_owned(), 10), ("projects".to_owned(), 5)]));
    assert!(config.plans["free"].limits.is_empty());
}

#[test]
fn reads_operators() {
    let config = Given::variables([("TENANCY_ACCESS__OPERATORS", "Ann@Example.com, https://issuer|abc")]).config();
    let subject = Operator::Subject { issuer: "https://issuer".to_owned(), subject: "abc".to_owned() };
    assert_eq!(config.access.operators, [Operator::Email("ann@example.com".to_owned()), subject]);
}

const PROVIDERS: &str = "
[[access.providers]]
issuer = 'https://login.example.com/'
audience = 'tenancy'
[[access.providers]]
issuer = 'http://localhost:8300'
audience = ['a', 'b']
jwks_url = 'http://127.0.0.1:8300/keys?all=1'
algorithms = ['ES384']
clock_leeway_seconds = 5
subject_claim = 'oid'
email_claim = 'upn'
email_verified_claim = 'https://x/verified'
name_claim = 'nick.name'
organization_claim = ['org', 'id']
organization_role = 'reader-2'
";

#[test]
fn reads_providers_from_the_file_and_shows_them_as_they_can_be_read_again() {
    let loaded = Given::file(PROVIDERS).load().unwrap();
    let [one, other] = &loaded.config.access.providers.0[..] else { panic!("not two") };
    assert_eq!(one.issuer, "https://login.example.com/", "with its slash, as it stands in the tokens");
    assert_eq!(one.audience, ["tenancy"]);
    assert_eq!(format!("{:?}", one.algorithms), "[RS256, ES256, EdDSA]");
    assert_eq!((one.subject_claim.as_str(), one.email_verified_claim.as_str()), ("sub", "email_verified"));
    assert_eq!((&one.jwks_url, one.clock_leeway_seconds, &one.organization), (&None, None, &None));
    assert_eq!(other.organization.as_ref().unwrap().path, ["org", "id"]);
    assert_eq!(other.jwks_url.as_ref().unwrap().as_str(), "http://127.0.0.1:8300/keys?all=1");
    assert_eq!(Given::file(loaded.report()).config(), loaded.config);
}

#[test]
fn reads_providers_from_the_environment_as_toml_or_json() {
    for text in [
        "[{issuer = 'https://a', audience = 'x', organization_claim = 'urn:a:b.c/d', organization_role = 'member'}]",
        r#"[{"issuer": "https://a", "audience": ["x"], "organization_claim": ["urn:a:b.c/d"], "organization_role": "member"}]"#,
    ] {
        let given = Given { variables: vec![("TENANCY_ACCESS__PROVIDERS", text)], ..Given::default() };
        let organization = given.config().access.providers.0[0].organization.clone().unwrap();
        assert_eq!(organization, OrganizationClaim { path: vec!["urn:a:b.c/d".to_owned()], role: "member".to_owned() });
    }
}

#[test]
fn says_which_part_of_which_provider_is_wrong() {
    let good = "issuer = 'https://a'\naudience = 'x'\n";
    for (part, at) in [
        ("audience = 'x'", "access.providers[1].issuer cannot be missing"),
        ("issuer = 'https://b'", "access.providers[1].audience cannot be missing"),
        (good, "access.providers[1].issuer cannot be \"https://a\""),
        ("audience = 'x'\nissuer = 'http://b.example'", "access.providers[1].issuer cannot be \"http://b.example\""),
        ("audience = 'x'\nissuer = 'https://u:p@b'", "[1].issuer"),
        ("audience = 'x'\nissuer = 'https://b?x'", "[1].issuer"),
        ("audience = 'x'\nissuer = 'https://b#x'", "[1].issuer"),
        ("audience = 'x'\nissuer = ' https://b'", "[1].issuer"),
        ("audience = 'x'\nissuer = 'ftp://localhost'", "[1].issuer"),
        ("audience = 'x'\nissuer = 'https://tenancy.local'", "which is the name of the built-in one"),
        ("issuer = 'https://b'\naudience = []", "[1].audience"),
        ("issuer = 'https://b'\naudience = ['']", "[1].audience"),
        ("jwks_url = 'http://b.example/keys'", "[1].jwks_url"),
        ("algorithms = []", "[1].algorithms"),
        ("algorithms = ['RS256', 'HS256']", "[1].algorithms"),
        ("algorithms = ['none']", "[1].algorithms"),
        ("clock_leeway_seconds = 301", "[1].clock_leeway_seconds cannot be 301"),
        ("subject_claim = ''", "[1].subject_claim"),
        ("organization_claim = 'org'", "[1].organization_role cannot be missing"),
        ("organization_claim = 'org'\norganization_role = 'owner'", "[1].organization_role"),
        ("organization_claim = 'org'\norganization_role = 'Own Role'", "[1].organization_role"),
        ("organization_claim = ['org', 5]\norganization_role = 'guest'", "[1].organization_claim"),
        ("organization_role = 'guest'", "[1].organization_role"),
        ("isuer = 'https://b'", "access.providers[1].isuer: there is no such setting\ndid you mean issuer?"),
    ] {
        let whole = part.contains("issuer") || part.contains("audience");
        let rest = if whole { "" } else { "issuer = 'https://b'\naudience = 'x'\n" };
        let error = Given::file(format!("[[access.providers]]\n{good}[[access.providers]]\n{rest}{part}")).error();
        assert!(error.contains(at) && error.contains("tenancy.toml"), "{part}: {error}");
    }
    for text in ["https://a", "[5]", "{}", "[{]", "[]\nother = 5"] {
        let error = Given { variables: vec![("TENANCY_ACCESS__PROVIDERS", text)], ..Given::default() }.error();
        assert!(error.contains("TENANCY_ACCESS__PROVIDERS: access.providers cannot be"), "{error}");
    }
}

const STREAMS: &str = "
[[audit.streams]]
name = 'siem'
kind = 'http'
url = 'https://siem.example.com/ingest?key=s3cret'
format = 'array'
gzip = true
header = 'X-Token'
token = 's3cret'
trails = ['installation']
start = 'now'
batch_wait_ms = 5
[[audit.streams]]
name = 'syslog-1'
kind = 'syslog'
address = '[::1]:6514'
ca = '/etc/ca.pem'
certificate = '/etc/c.pem'
key = '/etc/k.pem'
";

#[test]
fn reads_streams_and_shows_them_without_their_secrets() {
    let loaded = Given::file(STREAMS).load().unwrap();
    let [http, syslog] = &loaded.config.audit.streams.0[..] else { panic!("not two") };
    let StreamReceiver::Http { url, array: true, gzip: true, header: Some((name, value)) } = &http.to else {
        panic!("{http:?}")
    };
    assert_eq!((url.query(), name.as_str(), value.as_bytes()), (Some("key=s3cret"), "x-token", &b"s3cret"[..]));
    assert_eq!((http.organizations, http.installation, http.from_now, http.batch_wait_ms), (false, true, true, 5));
    let address = StreamReceiver::Syslog { host: "::1".to_owned(), port: 6514, message_bytes_max: 8_192 };
    assert_eq!((&syslog.to, syslog.organizations, syslog.batch_events_max), (&address, true, 100));
    assert_eq!(syslog.identity, Some(("/etc/c.pem".into(), "/etc/k.pem".into())));
    for shown in [loaded.report(), format!("{:?}", loaded.config)] {
        assert!(!shown.contains("token = \"s3cret\"") && !shown.contains("\"s3cret\""), "{shown}");
    }
    let report = loaded.report();
    assert!(!report.contains("s3cret"), "{report}");
    let again = Given::file(report).config().audit.streams;
    assert_eq!((&again.0[0].name, &again.0[1]), (&http.name, syslog));
}

#[test]
fn says_which_part_of_which_stream_is_wrong_and_repeats_no_secret() {
    let http = "name = 'a'\nkind = 'http'\nurl = 'https://b'\n";
    let syslog = "name = 'a'\nkind = 'syslog'\naddress = 'b:1'\n";
    for (text, at) in [
        ("kind = 'http'\nurl = 'https://b'".to_owned(), "audit.streams[0].name cannot be missing"),
        (http.replace("'a'", "'A b'"), "[0].name cannot be \"A b\""),
        (http.replace("'http'", "'udp'"), "[0].kind cannot be \"udp\""),
        (http.replace("https://b", "http://b.example"), "[0].url"),
        (http.replace("https://b", "https://u:s3cret@b"), "[0].url cannot be what it is"),
        (format!("{http}address = 'b:1'"), "[0].address cannot be what it is"),
        (format!("{syslog}token = 's3cret'"), "[0].token cannot be what it is"),
        (format!("{http}token = 's3cret\\u0000'").replace('\'', "\""), "[0].token cannot be what it is"),
        (format!("{http}header = 'X'"), "[0].header"),
        (format!("{http}token = 's3cret'\nheader = 'Content-Length'"), "[0].header"),
        (format!("{http}gzip = 'yes'"), "[0].gzip"),
        (format!("{http}format = 'xml'"), "[0].format"),
        (format!("{http}trails = []"), "[0].trails"),
        (format!("{http}start = 5"), "[0].start"),
        (format!("{http}key = '/k'"), "[0].certificate cannot be missing"),
        (format!("{http}ca = '~/ca.pem'"), "[0].ca"),
        (format!("{http}batch_events_max = 0"), "[0].batch_events_max cannot be 0"),
        (format!("{http}timeout_ms = 5"), "[0].timeout_ms cannot be 5"),
        (syslog.replace("b:1", "b"), "[0].address"),
        (syslog.replace("b:1", "b:0"), "[0].address"),
        (syslog.replace("b:1", "u@b:1"), "[0].address"),
        (syslog.replace("b:1", "::1:514"), "[0].address"),
        (format!("{http}tokn = 's3cret'"), "audit.streams[0].tokn: there is no such setting\ndid you mean token?"),
        (format!("{http}[[audit.streams]]\n{syslog}"), "[1].name cannot be \"a\""),
    ] {
        let error = Given::file(format!("[[audit.streams]]\n{text}")).error();
        assert!(error.contains(at) && error.contains("tenancy.toml"), "{text}: {error}");
        assert!(!error.contains("s3cret"), "{error}");
    }
    let error = Given { variables: vec![("TENANCY_AUDIT__STREAMS", "s3cret")], ..Given::default() }.error();
    assert!(error.contains("audit.streams cannot be") && !error.contains("s3cret"), "{error}");
}

#[test]
fn folds_reserved_slugs() {
    let config = Given::variables([("TENANCY_ORGANIZATIONS__SLUG_RESERVED", "Admin,API")]).config();
    assert_eq!(config.organizations.slug_reserved, ["admin", "api"]);
}

#[test]
fn puts_data_where_the_system_expects_it() {
    let data_dir = |surroundings: &Surroundings| load_from(&Flags::default(), surroundings).map(|l| l.config.data_dir);
    let user = surroundings(&[]);
    assert!(data_dir(&user).unwrap().starts_with("/home/ann"));
    assert!(data_dir(&user).unwrap().ends_with("tenancy"));
    let custom = surroundings(&[("XDG_DATA_HOME", "/data")]);
    assert_eq!(data_dir(&custom).unwrap(), Path::new("/data/tenancy"));
    let root = Surroundings { root: true, ..custom };
    assert_eq!(data_dir(&root).unwrap(), Path::new("/var/lib/tenancy"));
    let homeless = Surroundings { home: None, ..user };
    assert!(data_dir(&homeless).unwrap_err().to_string().contains("set TENANCY_DATA_DIR to a folder"));
    let set = Given::variables([("TENANCY_DATA_DIR", "here")]).config().data_dir;
    assert!(set.is_absolute() && set.ends_with("here"));
}

#[test]
fn signs_tokens_by_itself_only_where_nobody_else_can_call() {
    let issuer = |variables: &[(&str, &str)]| {
        load_from(&Flags::default(), &surroundings(variables)).unwrap().config.builtin_issuer()
    };
    let (outside, database) = (("TENANCY_LISTEN", "0.0.0.0:8080"), ("DATABASE_URL", "postgres://h/d"));
    assert!(issuer(&[("TENANCY_LISTEN", "[::1]:8080")]));
    assert!(!issuer(&[outside]));
    assert!(!issuer(&[database]));
    assert!(issuer(&[outside, database, ("TENANCY_ACCESS__BUILTIN_ISSUER", "true")]));
    assert!(!issuer(&[("TENANCY_ACCESS__BUILTIN_ISSUER", "false")]));
}

/// With `BLESS=1` in the environment it writes the file instead.
#[test]
fn the_example_is_the_reference() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config.example.toml");
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&path, reference()).unwrap();
    }
    let example = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(example == reference(), "config.example.toml is out of date; run the tests once with BLESS=1");
    let config = Given::file(example).config();
    assert_eq!(config, Given::default().config());
    let documented =
        settings::SECTIONS.iter().flat_map(|section| section.keys).all(|key| !key.documentation.is_empty());
    assert!(documented);
}
