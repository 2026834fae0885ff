//! The table of all keys: documentation, type, default and limits, each in one place.
//!
//! To add a key, add its lines here. The struct gets a field, the environment and the flags a name, the reference an
//! entry. Units stand last in names. The first line of a documentation says what the value is, with its unit; the
//! others say why one would change it.

// The comments on settings are lines of the example file, not pages.
#![allow(rustdoc::bare_urls)]

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use super::providers::Providers;
use super::sources::{Error, Layers};
use super::streams::AuditStreams;
use super::values::{
    DatabaseUrl, FetchUrl, Home, LogFormat, MasterKey, Network, Operator, Origin, Plan, PlanName, Ports, Setting,
};
use super::witnesses::Witnesses;

/// What is known of a key without a value.
pub(super) struct Key {
    /// Its place in the file: `section.name`, or `name` at the top.
    pub path: &'static str,
    pub documentation: &'static [&'static str],
    /// Smallest and largest number (of a list or text: length), where there is one.
    pub limits: Option<(u64, u64)>,
}

pub(super) struct Section {
    pub name: &'static str,
    pub documentation: &'static [&'static str],
    pub keys: &'static [Key],
}

/// A value as the report and the reference show it: `None` if it is not set, and never a secret.
pub(super) type Shown = Option<toml::Value>;

macro_rules! path {
    ($field:ident) => {
        stringify!($field)
    };
    ($section:ident . $field:ident) => {
        concat!(stringify!($section), ".", stringify!($field))
    };
}

macro_rules! limits {
    () => {
        None
    };
    ($smallest:literal, $largest:literal) => {
        Some(($smallest, $largest))
    };
}

macro_rules! settings {
    (
        $(#[doc = $config_doc:literal])*
        Config {
            $($(#[doc = $doc:literal])* $field:ident: $type:ty = $default:expr $(, $smallest:literal..=$largest:literal)?;)*
        }
        $(
            $(#[doc = $section_doc:literal])*
            $section:ident: $struct:ident {
                $(
                    $(#[doc = $inner_doc:literal])*
                    $inner:ident: $inner_type:ty = $inner_default:expr
                        $(, $inner_smallest:literal..=$inner_largest:literal)?;
                )*
            }
        )*
    ) => {
        $(#[doc = $config_doc])*
        #[derive(Debug, Clone, PartialEq)]
        pub struct Config {
            $($(#[doc = $doc])* pub $field: $type,)*
            $($(#[doc = $section_doc])* pub $section: $struct,)*
            /// Plans by name: what an organization may have. `free`, without limits, is always there.
            pub plans: BTreeMap<PlanName, Plan>,
        }

        impl Default for Config {
            fn default() -> Self {
                Self {
                    $($field: $default,)*
                    $($section: $struct::default(),)*
                    plans: BTreeMap::from([(PlanName::default(), Plan::default())]),
                }
            }
        }

        impl Config {
            pub(super) fn read(layers: &mut Layers) -> Result<Self, Error> {
                Ok(Self {
                    $($field: layers.take(path!($field), limits!($($smallest, $largest)?), $default)?,)*
                    $($section: $struct::read(layers)?,)*
                    plans: BTreeMap::new(),
                })
            }

            /// Every value by its place in the file.
            pub(super) fn shown(&self) -> BTreeMap<&'static str, Shown> {
                let mut shown = BTreeMap::new();
                $(shown.insert(path!($field), self.$field.shown());)*
                $(self.$section.show(&mut shown);)*
                shown
            }
        }

        $(
            $(#[doc = $section_doc])*
            #[derive(Debug, Clone, PartialEq)]
            pub struct $struct {
                $($(#[doc = $inner_doc])* pub $inner: $inner_type,)*
            }

            impl Default for $struct {
                fn default() -> Self {
                    Self { $($inner: $inner_default,)* }
                }
            }

            impl $struct {
                fn read(layers: &mut Layers) -> Result<Self, Error> {
                    Ok(Self {
                        $($inner: layers.take(
                            path!($section.$inner),
                            limits!($($inner_smallest, $inner_largest)?),
                            $inner_default,
                        )?,)*
                    })
                }

                fn show(&self, shown: &mut BTreeMap<&'static str, Shown>) {
                    $(shown.insert(path!($section.$inner), self.$inner.shown());)*
                }
            }
        )*

        /// All keys but those of plans, in the order of the reference; the section without a name is the top.
        pub(super) const SECTIONS: &[Section] = &[
            Section {
                name: "",
                documentation: &[$($config_doc),*],
                keys: &[$(Key {
                    path: path!($field),
                    documentation: &[$($doc),*],
                    limits: limits!($($smallest, $largest)?),
                }),*],
            },
            $(Section {
                name: stringify!($section),
                documentation: &[$($section_doc),*],
                keys: &[$(Key {
                    path: path!($section.$inner),
                    documentation: &[$($inner_doc),*],
                    limits: limits!($($inner_smallest, $inner_largest)?),
                }),*],
            },)*
        ];
    };
}

settings! {
    /// Everything that can be configured.
    Config {
        /// Address and port on which the service listens.
        /// Away from loopback the built-in issuer is off unless access.builtin_issuer says otherwise.
        listen: SocketAddr = SocketAddr::from((Ipv4Addr::LOCALHOST, 8080));
        /// Folder of what is the service's own: keys and the private database.
        /// Not set: "tenancy" in the user's folder for data, or /var/lib/tenancy as root.
        data_dir: PathBuf = PathBuf::new();
        /// What is logged: a level (error, warn, info, debug, trace), or directives such as "info,tenancy=debug".
        log: String = "info".to_owned(), 1..=1_000;
        /// How it is logged: "text" for people, "json" for machines.
        log_format: LogFormat = LogFormat::Text;
    }

    /// The PostgreSQL that holds everything.
    database: Database {
        /// Address of a PostgreSQL 15 or newer, as postgres://user:password@host:port/database.
        /// Not set: the service runs a private one in data_dir. DATABASE_URL is another name of this.
        url: Option<DatabaseUrl> = None;
        /// The same database as its owner, who migrates it; then url is a login that may only do what the service needs.
        /// Not set: url is the owner's, or the database is brought up to date by `tenancy migrate` from elsewhere.
        owner_url: Option<DatabaseUrl> = None;
        /// Most connections at once, of this replica: three eighths for lists, one eighth for what operators read over all
        /// organizations, the others for the rest. Read models and writers have some besides.
        connections_max: u32 = 32, 4..=1_000;
        /// Longest time of one statement, in milliseconds.
        statement_timeout_ms: u64 = 10_000, 100..=600_000;
        /// Folder of the programs (initdb, postgres) for the private database.
        /// Not set: searched for in the usual places, then among those that were fetched.
        postgres_bin_dir: Option<PathBuf> = None;
        /// Whether PostgreSQL's programs may be those that are installed on this machine.
        /// If not, only fetched ones are used, so that every machine has the same.
        postgres_installed: bool = true;
        /// Whether the programs may be fetched, once, where none that fit are found. They are checked and kept in data_dir.
        postgres_fetch: bool = true;
        /// Where they are fetched from: a folder with VERSION/postgresql-VERSION-TARGET.tar.gz and, beside each,
        /// the same name with ".sha256". What another place than this one has is believed by that file alone.
        postgres_fetch_url: FetchUrl = FetchUrl::default();
        /// Number of partitions of the log. Counts only when a database is first set up; it cannot be changed later.
        partitions: u16 = 16, 1..=1_024;
        /// Writers of this replica. Each appends to partitions of its own, on a connection of its own.
        writers: u16 = 2, 1..=64;
    }

    /// What is served besides GraphQL, and behind what.
    http: Http {
        /// Whether the console is served at "/console/". People sign in to it by a code that the service prints while it
        /// listens on loopback with the built-in issuer, or at the first of access.providers with a console_client.
        console: bool = true;
        /// Whether GraphiQL is served at "/graphiql".
        graphiql: bool = true;
        /// File of persisted documents: a JSON object of GraphQL documents by the SHA-256 of their text, in hexadecimal digits.
        /// Clients name one by `documentId` ("sha256:…") instead of sending it. None: there are none.
        persisted_documents: Option<PathBuf> = None;
        /// Whether only persisted documents are answered.
        persisted_documents_only: bool = false;
        /// Whether introspection is answered without a token. Clients' build tools ask for it; strangers may as well.
        introspection_without_token: bool = true;
        /// Origins whose pages may call the service from a browser, each exactly as browsers send it. None: no other page.
        cors_origins: Vec<Origin> = Vec::new(), 0..=1_000;
        /// Most connections. Fewer where the process may not have so many descriptors: some are kept for the database,
        /// files and health checks.
        connections_max: u32 = 4_096, 4..=1_000_000;
        /// Most connections of one address (of IPv6, one /64). Not counted with trusted_proxies, which all come from one.
        connections_per_address_max: u32 = 512, 1..=1_000_000;
        /// Longest time from connecting to the end of the first request's headers, in seconds.
        header_timeout_seconds: u64 = 10, 1..=600;
        /// Longest time between two requests of a connection, and for taking a part of an answer, in seconds.
        idle_timeout_seconds: u64 = 60, 1..=3_600;
        /// Longest wait for requests in flight when the service stops, in seconds.
        shutdown_grace_seconds: u64 = 20, 0..=3_600;
        /// Number of proxies in front of the service that add to X-Forwarded-For and can be trusted.
        /// With 0 that header is not looked at, so nobody can pretend to call from elsewhere.
        trusted_proxies: u8 = 0, 0..=16;
    }

    /// Limits of requests and queues. One past each of them is refused with a message that names it.
    limits: Limits {
        /// Largest body of a request, in bytes.
        body_bytes_max: u64 = 262_144, 1_024..=16_777_216;
        /// Largest GraphQL document, in bytes.
        query_bytes_max: u64 = 65_536, 256..=16_777_216;
        /// Most tokens of a GraphQL document.
        tokens_max: u32 = 4_000, 50..=100_000;
        /// Deepest nesting of a GraphQL document. Introspection by the usual tools needs 15.
        depth_max: u32 = 16, 3..=100;
        /// Most aliases of a GraphQL document.
        aliases_max: u32 = 50, 0..=10_000;
        /// Brackets open at once in a GraphQL document; protects the stack of everything that reads it.
        nesting_max: u32 = 50, 10..=200;
        /// Most fields and fragments of a GraphQL document, each fragment counted wherever it is spread.
        selections_max: u32 = 2_000, 50..=100_000;
        /// Most fields at the root of one operation.
        root_fields_max: u32 = 30, 1..=1_000;
        /// Most directives of a GraphQL document.
        directives_max: u32 = 50, 0..=10_000;
        /// Largest answer to a GraphQL document, in bytes.
        answer_bytes_max: u64 = 16_777_216, 65_536..=1_073_741_824;
        /// Largest answer of introspection, in bytes, with 64 besides for each object.
        /// The complete one, as GraphiQL asks for it, has about 600,000, and counts for twice as much.
        introspection_bytes_max: u64 = 4_194_304, 0..=1_073_741_824;
        /// Most memory for answers to queries that are given again while nothing changed that they were made from, in bytes.
        /// 0 keeps none.
        answers_kept_bytes_max: u64 = 67_108_864, 0..=68_719_476_736;
        /// Largest complexity of a GraphQL document: fields, multiplied by the sizes of the pages around them.
        complexity_max: u64 = 20_000, 100..=10_000_000;
        /// Largest page of a list.
        page_size_max: u32 = 100, 1..=100;
        /// Longest time of one request, in milliseconds.
        request_timeout_ms: u64 = 15_000, 100..=600_000;
        /// Longest wait for a read model that a reader asked to be as new as a position, in milliseconds.
        at_least_wait_ms_max: u64 = 5_000, 0..=600_000;
        /// Most commands that wait for one writer; more are answered UNAVAILABLE.
        queue_commands_max: usize = 4_096, 1..=1_000_000;
        /// Most commands that a writer commits together.
        batch_commands_max: usize = 512, 1..=100_000;
    }

    /// Live feeds (subscriptions), of this replica. A client that is cut off goes on at its last position.
    feed: Feed {
        /// Most connections that are open for feeds at once. 0 turns live feeds off.
        connections_max: u32 = 5_000, 0..=1_000_000;
        /// Most of these by one user.
        connections_per_user_max: u32 = 20, 1..=1_000_000;
        /// Most feeds in one WebSocket.
        feeds_per_connection_max: u32 = 16, 1..=1_000;
        /// How long a feed is silent before it says that it is there, and where it is, in seconds.
        heartbeat_seconds: u32 = 15, 1..=300;
        /// How long a client may take to receive one message before it is cut off, in seconds.
        send_timeout_seconds: u32 = 30, 1..=600;
        /// How long a WebSocket may be open without having said who it is, in seconds.
        init_timeout_seconds: u32 = 10, 1..=300;
        /// Newest events of each partition that are kept in memory. A feed that is behind them reads from the database.
        buffer_events: usize = 2_000, 1..=1_000_000;
        /// Most bytes of these, of each partition, about.
        buffer_bytes: usize = 4_194_304, 1_024..=1_073_741_824;
    }

    /// How often one may call: for each kind of caller and call how many a minute and how many at once.
    /// One past that is answered RATE_LIMITED, with the time to wait. 0 a minute is no limit.
    rate_limits: RateLimits {
        /// Whether anything of this is in force.
        enabled: bool = true;
        /// How many replicas there are. Each counts for itself and lets its share of every quota through.
        /// With 1 each lets the whole quota through, so N replicas behind a balancer N times as much.
        replicas: u32 = 1, 1..=1_000;
        /// Calls without a valid token, from one address (IPv6: one /64), a minute.
        address_per_minute: u32 = 600, 0..=6_000_000;
        /// The same, at once.
        address_burst: u32 = 100, 1..=1_000_000;
        /// Queries of one user, a minute.
        principal_read_per_minute: u32 = 6_000, 0..=6_000_000;
        /// The same, at once.
        principal_read_burst: u32 = 600, 1..=1_000_000;
        /// Mutations of one user, a minute; each counts, also where one request has several.
        principal_write_per_minute: u32 = 1_200, 0..=6_000_000;
        /// The same, at once; also the most mutations in one request.
        principal_write_burst: u32 = 200, 1..=1_000_000;
        /// Invitations that one user makes or sends again, a minute. They count as mutations too.
        principal_invite_per_minute: u32 = 60, 0..=6_000_000;
        /// The same, at once.
        principal_invite_burst: u32 = 30, 1..=1_000_000;
        /// Queries that read one organization, by all its members, a minute.
        organization_read_per_minute: u32 = 60_000, 0..=6_000_000;
        /// The same, at once.
        organization_read_burst: u32 = 6_000, 1..=1_000_000;
        /// Mutations within one organization, by all its members, a minute.
        organization_write_per_minute: u32 = 12_000, 0..=6_000_000;
        /// The same, at once.
        organization_write_burst: u32 = 2_000, 1..=1_000_000;
        /// Invitations to one organization, by all its members, a minute. They count as mutations too.
        organization_invite_per_minute: u32 = 300, 0..=6_000_000;
        /// The same, at once.
        organization_invite_burst: u32 = 150, 1..=1_000_000;
    }

    /// Sending webhooks.
    webhooks: Webhooks {
        /// Whether this replica sends them. They are written by all, whether anybody sends them or not.
        send: bool = true;
        /// Whether endpoints may be plain http. For development, and for networks of one's own.
        http_allowed: bool = false;
        /// Ports that may be connected to: numbers, or ranges such as "1024-65535".
        ports: Vec<Ports> = Ports::usual(), 1..=100;
        /// Blocks of addresses that are not public and may be sent to all the same, such as "10.1.0.0/16".
        /// Without them nothing is sent to private, loopback, link-local, metadata and other special addresses.
        addresses_allowed: Vec<Network> = Vec::new(), 0..=100;
        /// Longest time until there is a connection, in milliseconds.
        connect_timeout_ms: u64 = 5_000, 100..=60_000;
        /// Longest time of one attempt, from looking up the name to the answer, in milliseconds.
        timeout_ms: u64 = 15_000, 100..=40_000;
        /// Most attempts at once, of this replica; a quarter of it for one organization. Each takes a connection, and with it a
        /// file descriptor.
        in_flight_max: u32 = 1_000, 4..=100_000;
        /// Most attempts at once to one endpoint, of all replicas together. One that is down gets one at a time.
        endpoint_in_flight_max: u32 = 16, 1..=1_000;
        /// Most events a second to one endpoint that asks for no other rate itself. 0 is no limit.
        endpoint_rate_per_second: u32 = 0, 0..=10_000;
        /// Pauses after each failed attempt, in seconds, each a tenth more or less; when they are used up the delivery has
        /// failed. As it stands that is after three days.
        retry_seconds: Vec<u32> = retries(), 0..=50;
        /// After how many hours of nothing but failures an organization is warned of its endpoint (`webhook.failing`).
        warn_after_hours: u32 = 12, 1..=8_760;
        /// After how many hours of nothing but failures an endpoint is disabled. Before deliveries fail for good: so all
        /// of them are sent when it is enabled again.
        disable_after_hours: u32 = 60, 1..=8_760;
        /// How long deliveries that are done are kept, in days.
        retention_days: u32 = 30, 1..=3_650;
    }

    /// The callers that are let in, and as what.
    access: Access {
        /// Operators of the service: verified e-mail addresses, or "issuer|subject".
        operators: Vec<Operator> = Vec::new(), 0..=1_000;
        /// Whether the service signs tokens itself (`tenancy token`).
        /// Not set: only while it listens on loopback with its private database.
        builtin_issuer: Option<bool> = None;
        /// Name of the built-in issuer in its tokens ("iss").
        issuer: String = "https://tenancy.local".to_owned(), 1..=255;
        /// Whom tokens have to be made for ("aud").
        audience: String = "tenancy".to_owned(), 1..=255;
        /// Validity of a token of the built-in issuer that is not told otherwise, in hours.
        token_ttl_hours_default: u32 = 24, 1..=8_760;
        /// Whether an operator has to approve a new user before they may do anything.
        approval_required: bool = false;
        /// How far the clock of an issuer may be off, in seconds.
        clock_leeway_seconds: u32 = 30, 0..=300;
        /// How long the access trail is kept, in days. The database lets nobody delete what is younger than 30.
        trail_days: u32 = 365, 30..=36_500;
        /// OpenID providers whose tokens count, at most 20. In the environment: the whole list, as TOML or JSON.
        /// In the file: tables such as this one. issuer and audience are needed; the other lines, but those of the
        /// organization, show what counts without them.
        /// [[access.providers]]
        /// issuer = "https://login.example.com"           # exactly as in its tokens ("iss")
        /// audience = ["tenancy"]                         # one of these has to stand in "aud"
        /// jwks_url = "https://login.example.com/keys"    # without it: what ISSUER/.well-known/openid-configuration says
        /// algorithms = ["RS256", "ES256", "EdDSA"]       # besides: RS384, RS512, PS256, PS384, PS512, ES384
        /// clock_leeway_seconds = 30                      # without it: access.clock_leeway_seconds
        /// subject_claim = "sub"
        /// email_claim = "email"
        /// email_verified_claim = "email_verified"        # true or "true"; no other address counts
        /// name_claim = "name"
        /// organization_claim = "urn:zitadel:iam:org:id"  # has its externalId; one key, or a path: ["org", "id"]
        /// organization_role = "member"                   # what such a user is there; any role of it but owner
        /// console_client = "tenancy-console"             # client of the console there (public, PKCE); one of audience too
        providers: Providers = Providers::default();
    }

    /// Proofs of the audit trail.
    audit: Audit {
        /// The name of this log in its checkpoints and verifier keys: a domain of yours, perhaps with a path; without
        /// spaces and "+". Auditors keep it, so it should never change.
        name: String = "tenancy.local/audit".to_owned(), 1..=200;
        /// How long the trail of a purged organization is kept after the purge, in days; 0: for ever. Afterwards its events
        /// lose their content; that it was there, when it was purged, and its proofs stay. Only the owner of the database
        /// can do that: the service, where it knows the owner (its own database, or owner_url), and `tenancy prune`.
        purged_kept_days: u32 = 0, 0..=36_500;
        /// How many events a second each replica reads again, to hold them against what was written and signed; 0: none.
        verify_events_per_second: u32 = 1_000, 0..=1_000_000;
        /// How long it rests when it has read everything, in seconds.
        verify_rest_seconds: u32 = 300, 1..=604_800;
        /// Witnesses of other people that cosign each checkpoint (`tenancy witness`, or any of C2SP tlog-witness), at most 16:
        /// they notice what was rolled back or forked even where the data directory is lost too. In the environment: the
        /// whole list, as TOML or JSON.
        /// witnesses = [{ url = "https://witness.example.org", key = "witness.example.org+1f2e3d4c+BA…" }]
        witnesses: Witnesses = Witnesses::default();
        /// How many of them have to have cosigned a checkpoint before it is handed out as witnessed; 0: all.
        witness_quorum: u32 = 0, 0..=16;
        /// Where alarms are sent to, as webhooks: by each replica what it noticed itself, once, until it was taken. The rules of
        /// webhooks.* say where that may be. Needs secrets.alarm_webhook_key.
        alarm_webhook_url: Option<String> = None, 1..=2_000;
        /// Whether commands are refused while something in the log is not as the service wrote it. If not, they are answered,
        /// and only what is doubtful is not signed any more.
        refuse_on_alarm: bool = false;
        /// Receivers that the audit trail is streamed to as OCSF, at most 8. In the environment: the whole list, as TOML or
        /// JSON. In the file: tables such as these. The other lines show what counts without them, but for certificates.
        /// [[audit.streams]]
        /// name = "siem"                              # its position is remembered by it
        /// kind = "http"                              # batches, posted
        /// url = "https://siem.example.com/ingest"    # http:// only on this machine
        /// format = "ndjson"                          # a line an event; or "array", a JSON array a batch
        /// gzip = false
        /// header = "Authorization"
        /// token = "Bearer …"                         # the whole value of that header; without it there is no such header
        /// ca = "/etc/ssl/siem-ca.pem"                # without it: the usual authorities
        /// certificate = "/etc/ssl/tenancy.pem"       # what the service shows the receiver, and its key; without: nothing
        /// key = "/etc/ssl/tenancy-key.pem"
        /// trails = ["organizations", "installation"]
        /// start = "beginning"                        # of a new stream; or "now"
        /// batch_events_max = 100                     # 1 to 1000
        /// batch_wait_ms = 1000                       # how long events are gathered; 0 to 60000
        /// timeout_ms = 15000                         # of a batch; 100 to 120000
        /// [[audit.streams]]
        /// name = "syslog"
        /// kind = "syslog"                            # RFC 5424 over TLS (RFC 5425)
        /// address = "siem.example.com:6514"
        /// message_bytes_max = 8192                   # longer messages go without the event's own fields
        streams: AuditStreams = AuditStreams::default();
    }

    /// Rules for organizations.
    organizations: Organizations {
        /// Whether an operator has to verify an organization before it may create projects.
        /// If not, organizations are verified when they are created.
        verification_required: bool = true;
        /// Slugs that no organization may take; upper case is folded.
        slug_reserved: Vec<String> = reserved(), 0..=10_000;
        /// How long a deleted organization or project can be restored, in days.
        restore_days: u32 = 30, 0..=3_650;
        /// Validity of an invitation that is not told otherwise, in hours.
        invitation_hours_default: u32 = 168, 1..=8_760;
        /// Longest validity of an invitation, in hours.
        invitation_hours_max: u32 = 720, 1..=8_760;
        /// Plan of new organizations.
        default_plan: PlanName = PlanName::default();
        /// What `ensureHomeOrganization` gives to a user without organization: "nothing", their "own" organization,
        /// or membership in a "default" one. An organization that the user's token names comes before all of these.
        /// One of their own is the deployment's gift: created_by_operators and created_per_user_max do not count for
        /// it.
        home: Home = Home::Nothing;
        /// The externalId or slug of the default organization.
        home_organization: Option<String> = None, 1..=200;
        /// What a user is in the default organization; not owner.
        home_role: String = "member".to_owned(), 1..=40;
        /// Whether only operators create organizations.
        created_by_operators: bool = false;
        /// How many organizations a user may create, those that are purged not counted; operators may any number.
        /// 0 is no limit.
        created_per_user_max: u32 = 0, 0..=500;
        /// Whether a user is a member of one organization at most, however they would come to another; a suspended
        /// member is one, and an organization counts until it is purged. A user who is in several when this is switched
        /// on stays so.
        one_per_user: bool = false;
    }

    /// Secrets. Better in the environment than in the file.
    secrets: Secrets {
        /// Key that encrypts the keys of persons: 32 bytes in base64 (`openssl rand -base64 32`).
        /// Not set: made at the first start and kept in a private file in data_dir. Without it personal data is lost.
        master_key: Option<MasterKey> = None;
        /// Another master key, which opens and wraps nothing new: the one before, until `tenancy rotate-master-key` is
        /// done; or the one to come, so that replicas can be told of it one after the other. Not set: the private file
        /// master.key.other in data_dir, if there is one.
        master_key_other: Option<MasterKey> = None;
        /// Keys that sign the checkpoints of the audit trail: each 32 bytes in base64 (the seed of an Ed25519 key). All of
        /// them sign. Not set: the files audit*.pem in data_dir, of which the first is made at the first start.
        audit_keys: Vec<MasterKey> = Vec::new(), 0..=8;
        /// Key that signs alarms to audit.alarm_webhook_url: 32 bytes in base64. The receiver's secret is the same text after
        /// "whsec_".
        alarm_webhook_key: Option<MasterKey> = None;
    }
}

/// Seconds first, then minutes, then hours: 5 s, 30 s, 2 min, 10 min, 30 min, 1 h, 2 h, 4 h, 8 h, 12 h, 20 h, 24 h.
fn retries() -> Vec<u32> {
    vec![5, 30, 120, 600, 1_800, 3_600, 7_200, 14_400, 28_800, 43_200, 72_000, 86_400]
}

/// Names that a product is likely to need for itself, or that could deceive people.
fn reserved() -> Vec<String> {
    [
        "about",
        "account",
        "admin",
        "administrator",
        "api",
        "app",
        "assets",
        "audit",
        "auth",
        "billing",
        "blog",
        "console",
        "dashboard",
        "docs",
        "events",
        "graphql",
        "health",
        "help",
        "internal",
        "invitations",
        "invite",
        "login",
        "logout",
        "me",
        "metrics",
        "new",
        "null",
        "oauth",
        "operator",
        "operators",
        "organizations",
        "orgs",
        "pricing",
        "projects",
        "public",
        "root",
        "security",
        "settings",
        "signin",
        "signup",
        "static",
        "status",
        "support",
        "system",
        "tenancy",
        "undefined",
        "users",
        "webhooks",
        "www",
    ]
    .map(str::to_owned)
    .to_vec()
}
