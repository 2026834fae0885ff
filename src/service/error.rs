//! Why the service cannot start or stop, and what to do about it.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::keys::{MASTER_KEY_FILE, OTHER_MASTER_KEY_FILE};
use crate::access::issuer::IssuerError;
use crate::commands::Fault;
use crate::log::LogError;
use crate::{audit, database, erased, private_file, streams, webhooks};

/// Why the service cannot start or stop. The text says what is wrong; [`Error::remedy`] what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database.
    #[error(transparent)]
    Database(#[from] database::Error),
    /// The log.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The built-in issuer.
    #[error(transparent)]
    Issuer(#[from] IssuerError),
    /// What asks OpenID providers, or sends webhooks.
    #[error("cannot prepare to call others over HTTP: {0}")]
    Provider(#[from] reqwest::Error),
    /// A private file.
    #[error(transparent)]
    File(#[from] private_file::Error),
    /// The list of erased people.
    #[error(transparent)]
    Erased(#[from] erased::Error),
    /// The heads of audit trails.
    #[error(transparent)]
    Heads(#[from] audit::heads::Error),
    /// A command of the service itself.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// The persisted documents.
    #[error("the persisted documents cannot be used (http.persisted_documents): {0}")]
    Documents(String),
    /// The data directory.
    #[error("cannot make the data directory {path}: {source}")]
    DataDir {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The master key's file.
    #[error("{0} holds no master key")]
    MasterKey(PathBuf),
    /// Where alarms are sent to.
    #[error("audit.alarm_webhook_url cannot be used: {0}")]
    AlarmWebhook(String),
    /// What was told of alarms.
    #[error(transparent)]
    Alarms(#[from] webhooks::alarms::Error),
    /// The witnesses of the audit trail.
    #[error("{0}")]
    Witness(String),
    /// The keys of the audit trail.
    #[error(transparent)]
    AuditKey(#[from] audit::keys::KeyError),
    /// A stream of the audit trail.
    #[error(transparent)]
    Stream(#[from] streams::TlsError),
    /// The address.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
}

impl Error {
    /// What to do about it.
    pub fn remedy(&self) -> Option<String> {
        match self {
            Self::Database(database::Error::Embedded(error)) => error.remedy(),
            Self::Database(database::Error::Database(_)) => {
                Some("look whether the database runs and whether DATABASE_URL is right".into())
            }
            Self::Database(database::Error::Settings) => {
                Some("connect to PostgreSQL itself; the service pools its connections".into())
            }
            Self::Database(database::Error::Roles { statements, .. }) => {
                Some(format!("let somebody who may make roles run this in the database, and start again:{statements}"))
            }
            Self::Database(database::Error::NoRoles(_) | database::Error::NoMember(_) | database::Error::Behind(_)) => Some(
                "run `tenancy migrate` with the owner's address in TENANCY_DATABASE__OWNER_URL: it brings the database up to date and makes the login a member of the roles".into(),
            ),
            Self::Database(database::Error::TooFree) => Some(
                "take from tenancy_writer, tenancy_projector, tenancy_reader and tenancy_operator what docs/operating.md does not give them".into(),
            ),
            Self::Database(database::Error::TooOld(_)) => Some("use PostgreSQL 15 or newer".into()),
            Self::Database(database::Error::Migration(_)) => {
                Some("look whether the database was made by a newer version of this program".into())
            }
            Self::Log(LogError::Cipher) => Some(format!(
                "give the master key that this database was set up with, as TENANCY_SECRETS__MASTER_KEY or in {MASTER_KEY_FILE} of the data directory"
            )),
            Self::Log(LogError::MasterKey(_)) => Some(format!(
                "give that one too, as TENANCY_SECRETS__MASTER_KEY_OTHER or in {OTHER_MASTER_KEY_FILE} of the data directory, until `tenancy rotate-master-key` is done"
            )),
            Self::Documents(_) => Some("make the file again from the documents that clients use: an object of texts by their SHA-256".into()),
            Self::Erased(_) => Some("it says who was erased when a database is restored: give the service a directory that lasts with TENANCY_DATA_DIR".into()),
            Self::Heads(_) => Some("it says what was signed when the database is not believed: give the service a directory that lasts with TENANCY_DATA_DIR".into()),
            Self::Listen { .. } => Some("free the address, or set another with --listen or TENANCY_LISTEN".into()),
            Self::AuditKey(audit::keys::KeyError::None(_) | audit::keys::KeyError::Unknown(_)) => Some(
                "give it the key of the service that began this database: its audit.pem in the data directory, or TENANCY_SECRETS__AUDIT_KEYS"
                    .into(),
            ),
            Self::Stream(_) => Some("correct audit.streams; `tenancy config` prints what is in force".into()),
            Self::Witness(_) => Some("give each witness once, with the key that it prints, and a quorum that they can reach".into()),
            Self::AlarmWebhook(_) => Some("give an address that webhooks may be sent to, or allow it with TENANCY_WEBHOOKS__…".into()),
            Self::Alarms(_) => Some("put the file away: alarms that stand are told once more then".into()),
            Self::DataDir { .. } => Some("set another with TENANCY_DATA_DIR".into()),
            Self::Fault(_)
            | Self::Log(_)
            | Self::Issuer(_)
            | Self::Provider(_)
            | Self::File(_)
            | Self::MasterKey(_)
            | Self::AuditKey(_) => None,
        }
    }
}

/// A failure of projections as one of the service.
pub fn failure(failure: projections::Failure) -> Error {
    Error::Log(match failure {
        projections::Failure::Database(error) => LogError::Database(error),
        failure @ (projections::Failure::Gap { .. }
        | projections::Failure::Worse { .. }
        | projections::Failure::Behind(_)
        | projections::Failure::HeldBack(_)
        | projections::Failure::Superseded(_)) => LogError::Corrupt(failure.to_string()),
    })
}
