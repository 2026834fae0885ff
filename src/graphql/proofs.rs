//! Proofs of the audit trail: its signed heads, and that they hold what they should.

use aggregates::ids::OrganizationId;
use async_graphql::{Context, Error, ID, SimpleObject};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::errors::{bad_input, log_fault};
use super::scalars::{Long, Time};
use super::session::{Session, id};
use crate::audit::merkle::Hash;
use crate::audit::proofs::{self, Head, NoProof};
use crate::audit::trail::Trail;
use crate::requests::trail::Kind;

/// A signed head of an organization's tree: a C2SP tlog-checkpoint.
#[derive(Debug, SimpleObject)]
pub struct AuditCheckpoint {
    /// The signed note, to be kept as it is and verified with a key that came by another road. With the cosignatures of
    /// witnesses, where enough of them have cosigned it.
    note: String,
    /// The newest note that enough witnesses have cosigned. It may be an older one. Null where there are no witnesses.
    witnessed_note: Option<String>,
    /// How many events it covers: those with an audit sequence up to this.
    tree_size: Long,
    /// The root of the tree, in base64.
    root_hash: String,
    /// When it was signed. Not part of what is signed.
    signed_at: Time,
    /// Why nothing follows it, though there are later events: what is stored is not what was signed. Null if all is well.
    failure: Option<String>,
}

/// The proof that an event is in a tree (RFC 6962, 2.1.1).
#[derive(Debug, SimpleObject)]
pub struct AuditInclusionProof {
    /// The number of the leaf: the audit sequence less one.
    leaf_index: Long,
    /// The size of the tree.
    tree_size: Long,
    /// The bytes that are hashed, in base64: the event's stored columns.
    leaf: String,
    /// Their hash, in base64.
    leaf_hash: String,
    /// The hashes of the proof, from the leaf to the root, in base64.
    path: Vec<String>,
}

/// The proof that a tree is the beginning of another one (RFC 6962, 2.1.2).
#[derive(Debug, SimpleObject)]
pub struct AuditConsistencyProof {
    /// The size of the older tree.
    from_size: Long,
    /// The size of the newer tree.
    to_size: Long,
    /// The hashes of the proof, in base64.
    path: Vec<String>,
}

fn base64(hashes: &[Hash]) -> Vec<String> {
    hashes.iter().map(|hash| STANDARD.encode(hash)).collect()
}

fn size(number: Long) -> u64 {
    number.0.unsigned_abs()
}

/// The organization, for whoever may read its audit trail.
pub async fn audited(ctx: &Context<'_>, argument: &str, organization: &ID) -> Result<Option<OrganizationId>, Error> {
    let session = Session::of(ctx);
    let id: OrganizationId = id(argument, organization)?;
    Ok(session.audits(&id, Kind::AuditRead).await?.then_some(id))
}

fn no_proof(error: NoProof) -> Error {
    match error {
        NoProof::OutOfRange(reason) => bad_input(reason),
        NoProof::Log(error) => log_fault(error),
    }
}

/// The newest signed head; none while nothing is sealed.
pub async fn checkpoint(ctx: &Context<'_>, organization: &ID) -> Result<Option<AuditCheckpoint>, Error> {
    let Some(id) = audited(ctx, "organizationId", organization).await? else { return Ok(None) };
    checkpoint_of(Session::of(ctx), &id.into()).await
}

/// The same of any trail.
pub(super) async fn checkpoint_of(session: &Session, trail: &Trail) -> Result<Option<AuditCheckpoint>, Error> {
    let log = session.log();
    let head = proofs::head(log.pool(), trail.as_ref()).await.map_err(log_fault)?;
    let told = log.alarms().told(trail.as_ref(), log.partition_of(trail.as_ref()));
    Ok(head.map(|Head { note, size, root, sealed_at, failure, witnessed }| AuditCheckpoint {
        note,
        witnessed_note: witnessed,
        tree_size: size.into(),
        root_hash: STANDARD.encode(root),
        signed_at: Time(sealed_at),
        failure: failure.or(told),
    }))
}

/// The proof that an event is in the tree of this size; in the newest, without.
pub async fn inclusion(
    ctx: &Context<'_>,
    organization: &ID,
    audit_sequence: Long,
    tree_size: Option<Long>,
) -> Result<Option<AuditInclusionProof>, Error> {
    let Some(id) = audited(ctx, "organizationId", organization).await? else { return Ok(None) };
    let (pool, sequence) = (Session::of(ctx).log().pool(), size(audit_sequence));
    let proof = proofs::inclusion(pool, id.as_ref(), sequence, tree_size.map(size)).await.map_err(no_proof)?;
    Ok(Some(AuditInclusionProof {
        leaf_index: Long::from(sequence.saturating_sub(1)),
        tree_size: proof.size.into(),
        leaf: STANDARD.encode(proof.leaf.bytes()),
        leaf_hash: STANDARD.encode(proof.leaf.hash()),
        path: base64(&proof.path),
    }))
}

/// The proof that the first of these trees is the beginning of the second; of the newest, without.
pub async fn consistency(
    ctx: &Context<'_>,
    organization: &ID,
    from_size: Long,
    to_size: Option<Long>,
) -> Result<Option<AuditConsistencyProof>, Error> {
    let Some(id) = audited(ctx, "organizationId", organization).await? else { return Ok(None) };
    let pool = Session::of(ctx).log().pool();
    let proof = proofs::consistency(pool, id.as_ref(), size(from_size), to_size.map(size)).await;
    let (to, path) = proof.map_err(no_proof)?;
    Ok(Some(AuditConsistencyProof { from_size, to_size: to.into(), path: base64(&path) }))
}
