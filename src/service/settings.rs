//! Settings as the rooms of the service take them.

use std::sync::Arc;
use std::time::Duration;

use super::{Core, Error};
use crate::access::Operator;
use crate::access::codes::Codes;
use crate::access::issuer::BuiltinIssuer;
use crate::access::openid::Provider;
use crate::audit::check::Pace;
use crate::audit::cosignature::{Quorum, WitnessKey};
use crate::audit::watch;
use crate::audit::witnesses::{Address, Asked};
use crate::commands::Rules;
use crate::commands::first_organization::FirstOrganization;
use crate::config::{self, AuditStream, Config, StreamReceiver};
use crate::database::roles::DatabaseRole;
use crate::endpoints::Targets;
use crate::feed;
use crate::graphql::Introspection;
use crate::http::console::{Local, SignIn};
use crate::http::{self, ConnectionLimits};
use crate::streams::{self, Receiver, Stream};

/// The OpenID providers of the configuration. None of them is asked yet, so none has to be there.
pub(super) fn providers(config: &Config) -> Result<Vec<Arc<Provider>>, Error> {
    let access = &config.access;
    let provider = |settings: &config::Provider| Provider::new(settings.clone(), access.clock_leeway_seconds);
    let providers = access.providers.0.iter().map(|settings| provider(settings).map(Arc::new));
    Ok(providers.collect::<Result<_, _>>()?)
}

/// The pages for browsers.
pub(super) fn pages(config: &Config, issuer: Option<&Arc<BuiltinIssuer>>) -> http::Pages {
    let provider = || {
        let client = |provider: &config::Provider| Some((provider.issuer.clone(), provider.console_client.clone()?));
        config.access.providers.0.iter().find_map(client)
    };
    let sign_in = || match (issuer.filter(|_| config.is_local()), provider()) {
        (Some(issuer), _) => SignIn::Local(Local { codes: Codes::new(&config.data_dir), issuer: issuer.clone() }),
        (None, Some((issuer, client))) => SignIn::OpenId { issuer, client },
        (None, None) => SignIn::Nobody,
    };
    http::Pages { console: config.http.console.then(sign_in), graphiql: config.http.graphiql }
}

pub(super) fn watch_terms(config: &Config) -> watch::Terms {
    let pace = Pace { events_per_second: config.audit.verify_events_per_second };
    watch::Terms { pace, rest: Duration::from_secs(config.audit.verify_rest_seconds.into()) }
}

/// The streams of the audit trail. Their certificates are read here, so a file that is missing keeps the service from
/// starting; a receiver that is away does not.
pub(super) fn streams(config: &Config, core: &Core) -> Result<Vec<Stream>, Error> {
    let stream = |settings: &AuditStream| {
        let terms = streams::Terms {
            name: settings.name.clone(),
            organizations: settings.organizations,
            installation: settings.installation,
            from_now: settings.from_now,
            batch_events_max: settings.batch_events_max as usize,
            batch_wait: Duration::from_millis(settings.batch_wait_ms),
            send_max: Duration::from_millis(settings.timeout_ms),
        };
        let (log, database) = (core.commands.log().clone(), core.database.options(DatabaseRole::Projector));
        Ok(Stream::new(terms, receiver(settings, &config.audit.name)?, log, database))
    };
    config.audit.streams.0.iter().map(stream).collect()
}

fn receiver(settings: &AuditStream, origin: &str) -> Result<Receiver, streams::TlsError> {
    let name = &settings.name;
    let files = streams::Files { ca: settings.ca.clone(), identity: settings.identity.clone() };
    Ok(match &settings.to {
        StreamReceiver::Syslog { host, port, message_bytes_max } => {
            let wrong = |why| streams::TlsError::Client { stream: name.clone(), why };
            let (address, tls) = ((host.clone(), *port), files.client(name)?);
            Receiver::Syslog(streams::Syslog::new(address, tls, origin, *message_bytes_max).map_err(wrong)?)
        }
        StreamReceiver::Http { url, array, gzip, header } => {
            Receiver::Http(streams::Http::new(name, url.clone(), (*array, *gzip), header.clone(), &files)?)
        }
    })
}

/// The witnesses of the configuration. None of them is asked yet, so none has to be there.
pub(super) fn witnesses(config: &Config) -> Result<Asked, Error> {
    let wrong = |why: String| Error::Witness(why);
    let key = |witness: &config::Witness| {
        let key: Result<WitnessKey, _> = witness.key.parse();
        key.map_err(|error| wrong(format!("audit.witnesses, {}: {error}", witness.url)))
    };
    let configured = &config.audit.witnesses.0;
    let keys = configured.iter().map(key).collect::<Result<Vec<_>, _>>()?;
    let least = Some(config.audit.witness_quorum as usize).filter(|least| *least > 0);
    let quorum =
        Quorum::new(keys, least).map_err(|why| wrong(format!("audit.witnesses and audit.witness_quorum: {why}")))?;
    let urls = configured.iter().map(|witness| witness.url.clone());
    let addresses = urls.zip(quorum.witnesses().iter().cloned()).map(|(url, key)| Address { url, key });
    Ok(Asked::new(addresses.collect(), quorum.least())?)
}

pub(super) fn rules(config: &Config) -> Rules {
    let organizations = &config.organizations;
    let plans = config.plans.iter().map(|(name, plan)| {
        let limits = plan.limits.iter().map(|(name, maximum)| (name.clone(), Some(*maximum))).collect();
        (name.as_str().to_owned(), limits)
    });
    Rules {
        approval_required: config.access.approval_required,
        first_organization: match (organizations.home, &organizations.home_organization) {
            (config::Home::Own, _) => FirstOrganization::Own,
            (config::Home::Default, Some(organization)) => {
                FirstOrganization::Default { organization: organization.clone(), role: organizations.home_role.clone() }
            }
            (config::Home::Nothing | config::Home::Default, _) => FirstOrganization::Nothing,
        },
        created_by_operators: organizations.created_by_operators,
        created_per_user_max: Some(organizations.created_per_user_max.into()).filter(|maximum| *maximum > 0),
        one_per_user: organizations.one_per_user,
        verification_required: organizations.verification_required,
        slug_reserved: organizations.slug_reserved.clone(),
        restore: chrono::Duration::days(i64::from(organizations.restore_days)),
        invitation_hours_default: i64::from(organizations.invitation_hours_default),
        invitation_hours_max: i64::from(organizations.invitation_hours_max),
        refuse_on_alarm: config.audit.refuse_on_alarm,
        witnessed: !config.audit.witnesses.0.is_empty(),
        default_plan: organizations.default_plan.as_str().to_owned(),
        webhook_targets: Arc::new(Targets {
            http_allowed: config.webhooks.http_allowed,
            ports: config.webhooks.ports.iter().map(|ports| ports.0.clone()).collect(),
            allowed: config.webhooks.addresses_allowed.iter().map(|network| network.0).collect(),
        }),
        access_trail_days: i32::try_from(config.access.trail_days).unwrap_or(i32::MAX),
        plans: plans.collect(),
    }
}

pub(super) fn operators(config: &Config) -> Vec<Operator> {
    let operator = |operator: &config::Operator| match operator {
        config::Operator::Email(email) => Operator::Email(email.clone()),
        config::Operator::Subject { issuer, subject } => {
            Operator::Subject { issuer: issuer.clone(), subject: subject.clone() }
        }
    };
    config.access.operators.iter().map(operator).collect()
}

/// Descriptors that are kept for files and whatever else is opened for a moment.
const DESCRIPTORS_KEPT: u64 = 64;

/// How many descriptors this process may have.
fn descriptors_max() -> u64 {
    let limit = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE);
    limit.map_or(1_024, |(soft, _)| soft)
}

/// Webhooks that may be under way: each is a connection, and a quarter of the descriptors is for them.
pub(super) fn webhooks_in_flight_max(config: &Config) -> usize {
    usize::try_from(u64::from(config.webhooks.in_flight_max).min(descriptors_max() / 4)).unwrap_or(usize::MAX)
}

pub(super) fn connection_limits(config: &Config) -> ConnectionLimits {
    let descriptors = descriptors_max();
    let (database, webhooks) = (&config.database, &config.webhooks);
    let sending = if webhooks.send { webhooks_in_flight_max(config) as u64 } else { 0 };
    let pools = u64::from(database.connections_max) + 2 * u64::from(database.writers) + 16;
    let room = descriptors.saturating_sub(pools + sending + DESCRIPTORS_KEPT).max(16);
    let settings = &config.http;
    let count = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    ConnectionLimits {
        connections_max: count(room.min(settings.connections_max.into())),
        per_address_max: Some(settings.connections_per_address_max as usize).filter(|_| settings.trusted_proxies == 0),
        header_time: Duration::from_secs(settings.header_timeout_seconds),
        idle_time: Duration::from_secs(settings.idle_timeout_seconds),
    }
}

pub(super) fn limits(config: &Config) -> http::Limits {
    let limits = &config.limits;
    let size = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    http::Limits {
        body_bytes_max: size(limits.body_bytes_max),
        query_bytes_max: size(limits.query_bytes_max),
        tokens_max: limits.tokens_max as usize,
        nesting_max: limits.nesting_max as usize,
        depth_max: limits.depth_max as usize,
        selections_max: limits.selections_max as usize,
        aliases_max: limits.aliases_max as usize,
        root_fields_max: limits.root_fields_max as usize,
        directives_max: limits.directives_max as usize,
        complexity_max: size(limits.complexity_max),
        answer_bytes_max: size(limits.answer_bytes_max),
        request_timeout_ms: limits.request_timeout_ms,
    }
}

/// The documents that are known from the start, within the limits of requests.
pub(super) fn documents(config: &Config, limits: http::Limits) -> Result<http::Documents, Error> {
    let (documents, only) = (http::Documents::new(limits), config.http.persisted_documents_only);
    let Some(path) = &config.http.persisted_documents else {
        return match only {
            true => documents.with_persisted("{}", only).map_err(Error::Documents),
            false => Ok(documents),
        };
    };
    let wrong = |why: String| Error::Documents(format!("{}: {why}", path.display()));
    let manifest = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    documents.with_persisted(&manifest, only).map_err(wrong)
}

/// How much of a partition is kept for feeds, and how long a feed may be silent.
pub(super) fn feeds(config: &Config) -> (feed::Sizes, Duration) {
    let sizes = feed::Sizes { events: config.feed.buffer_events, bytes: config.feed.buffer_bytes };
    (sizes, Duration::from_secs(config.feed.heartbeat_seconds.into()))
}

pub(super) fn introspection(config: &Config) -> Introspection {
    Introspection {
        bytes_max: usize::try_from(config.limits.introspection_bytes_max).unwrap_or(usize::MAX),
        without_token: config.http.introspection_without_token,
    }
}
