//! What others need to verify the audit trail: keys, exports, and the verification itself, which needs nothing else.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use aggregates::Actor;

use super::operate::exit;
use super::{Failure, actor, failed, misused, print, progress_bar, progress_lines};
use crate::audit::bundle::{LINE_BYTES_MAX, Line};
use crate::audit::cosignature::{Quorum, WitnessKey};
use crate::audit::export::{Export, Format, Request, sequence_at};
use crate::audit::leaf::time;
use crate::audit::merkle::Hash;
use crate::audit::note::{Checkpoint, VerifierKey};
use crate::audit::proofs::{self, NoProof};
use crate::audit::trail::Trail;
use crate::audit::verify::{older, verify as verify_bundle};
use crate::audit::watch::Status;
use crate::audit::witnesses::State;
use crate::config::Config;
use crate::database::embedded::Purpose;
use crate::log::Position;
use crate::requests::trail::{Kind, Occurrence};
use crate::service::{self, Core, audit_signers};

/// The verifier keys, a line each.
pub(super) fn key(config: &Config) -> Result<ExitCode, Failure> {
    let signers = audit_signers(config)?;
    Ok(print(&signers.iter().map(|signer| format!("{}\n", signer.verifier())).collect::<String>()))
}

/// How standing verification stands. It needs no database: its word is what is doubted.
pub(super) fn status(config: &Config) -> Result<ExitCode, Failure> {
    let unreadable = |error: std::io::Error| failed(format!("{}: {error}", config.data_dir.display()), REMEDY);
    let status = Status::read(&config.data_dir).map_err(unreadable)?;
    let status = status.ok_or_else(|| failed("no service has verified anything from this data directory", REMEDY))?;
    let mut text = match &status.last {
        Some(round) => format!(
            "everything was read up to {}: {} events, {} audit trails\n",
            time(round.ended_at.unwrap_or(round.began_at)),
            round.events,
            round.organizations
        ),
        None => "nothing was read to the end yet\n".to_owned(),
    };
    if let Some(round) = &status.current {
        let (began, read) = (time(round.began_at), round.events);
        text += &format!("being read again since {began}: {read} events so far\n");
    }
    text += &format!("as of {}\n", time(status.at));
    for alarm in &status.alarms {
        text += &format!("ALARM since {}: {}\n", time(alarm.since), alarm);
    }
    if status.alarms.is_empty() {
        text += "nothing differs from what was written and signed\n";
    }
    for State { name, cosigned_at, failure } in &status.witnesses {
        let at = cosigned_at.map_or_else(|| "nothing yet".to_owned(), |at| format!("at {}", time(at)));
        let failure = failure.as_ref().map_or_else(String::new, |failure| format!("; does not at present: {failure}"));
        text += &format!("witness {name} cosigned last: {at}{failure}\n");
    }
    print(&text);
    Ok(exit(status.alarms.is_empty()))
}

const REMEDY: &str = "give the data directory of a running service with --data-dir or TENANCY_DATA_DIR";

/// What to export, and whereto.
pub(super) struct Wanted {
    pub organization: Trail,
    pub out: PathBuf,
    pub format: Format,
    pub since: Option<Position>,
    pub operator: Option<String>,
}

/// Writes an export. An export that was cut off goes on where it stopped, and the file has its name only when it is
/// whole.
pub(super) async fn export(config: &Config, wanted: Wanted) -> Result<ExitCode, Failure> {
    let core = Core::open(config, Purpose::Command).await?;
    let written = async {
        // Without a running service nobody else does. A process without its key leaves it to one that has it.
        if let Ok(sealer) = core.sealer(config).await {
            sealer.seal_all().await.map_err(service::Error::from)?;
        }
        let actor = actor(&core, config, wanted.operator.as_deref()).await?;
        write(&core, &wanted, &actor).await
    };
    let written = written.await;
    core.close().await?;
    let (to, out) = (written?, wanted.out.display());
    if is_standard_output(&wanted.out) {
        let _ = writeln!(std::io::stderr(), "wrote the events up to {to}");
        return Ok(ExitCode::SUCCESS);
    }
    Ok(print(&format!("wrote {out} with the events up to {to}\n")))
}

/// Whether results go to standard output, where nothing else goes then.
pub(super) fn is_standard_output(out: &Path) -> bool {
    out == Path::new("-")
}

async fn write(core: &Core, wanted: &Wanted, actor: &Actor) -> Result<u64, Failure> {
    let log = core.commands.log();
    let Wanted { organization, out, format, since, .. } = wanted;
    let after = match since {
        Some(position) => match organization.organization() {
            Some(organization) => sequence_at(log, organization, position).await.map_err(no_proof)?,
            None => {
                return Err(failed(format!("the trail {organization} is exported as a whole"), "leave --since away"));
            }
        },
        None => 0,
    };
    let witnessed = core.commands.rules().witnessed;
    let mut request = Request { format: *format, after, witnessed, ..Request::default() };
    if is_standard_output(out) {
        let mut export = begin(core, organization, request, actor).await?;
        return copy(&mut export, &mut std::io::stdout(), out).await;
    }
    let mut part = out.clone().into_os_string();
    part.push(".part");
    let part = PathBuf::from(part);
    let io = |error: std::io::Error| unwritten(&part, &error);
    let mut file = File::options().read(true).write(true).create(true).truncate(false).open(&part).map_err(io)?;
    let begun = if *format == Format::Ndjson { begun(&mut file, organization, after).map_err(io)? } else { None };
    // What belongs to another history, of before a restore, is begun anew.
    let begun = match begun {
        Some(begun) if proofs::root_at(log.pool(), organization.as_ref(), begun.to).await.ok() == Some(begun.root) => {
            Some(begun)
        }
        _ => None,
    };
    if let Some(begun) = &begun {
        (request.to, request.resume_after) = (Some(begun.to), Some(begun.done));
    }
    let length = begun.map_or(0, |begun| begun.length);
    file.set_len(length).map_err(io)?;
    file.seek(SeekFrom::End(0)).map_err(io)?;
    let mut export = begin(core, organization, request, actor).await?;
    let to = copy(&mut export, &mut file, &part).await?;
    file.sync_all().map_err(io)?;
    std::fs::rename(&part, out).map_err(io)?;
    Ok(to)
}

/// Begins an export, which is on record from here on.
async fn begin(core: &Core, organization: &Trail, request: Request, actor: &Actor) -> Result<Export, Failure> {
    let export = Export::begin(core.commands.log(), organization, request).await.map_err(no_proof)?;
    let export = export.ok_or_else(|| {
        failed(format!("there is no organization {organization}"), "organizations have ids such as org_…")
    })?;
    core.commands.trail().note(Occurrence {
        kind: Kind::AuditExport,
        actor: actor.clone(),
        operation: "tenancy audit export".to_owned(),
        organization: organization.organization().cloned(),
        reached: None,
        target: Some(organization.to_string()),
        ip: None,
    });
    if let Some(failure) = export.failure() {
        let _ = writeln!(std::io::stderr(), "tenancy: later events are not sealed, and left out: {failure}");
    }
    Ok(export)
}

/// Writes all of an export, and says up to which event that is.
async fn copy(export: &mut Export, to: &mut impl Write, path: &Path) -> Result<u64, Failure> {
    let bar = progress_bar();
    bar.set_message("exporting");
    bar.set_length(export.to());
    let lines = tokio::spawn(progress_lines(bar.clone()));
    let copied = async {
        while let Some(lines) = export.next().await.map_err(service::Error::from)? {
            to.write_all(lines.as_bytes()).map_err(|error| unwritten(path, &error))?;
            bar.set_position(export.done());
        }
        to.flush().map_err(|error| unwritten(path, &error))
    };
    let copied = copied.await;
    lines.abort();
    bar.finish_and_clear();
    copied?;
    Ok(export.to())
}

pub(super) fn unwritten(path: &Path, error: &std::io::Error) -> Failure {
    failed(format!("cannot write {}: {error}", path.display()), None)
}

fn no_proof(error: NoProof) -> Failure {
    match error {
        NoProof::OutOfRange(reason) => failed(reason, None),
        NoProof::Log(error) => service::Error::from(error).into(),
    }
}

/// How far a bundle was written.
struct Begun {
    to: u64,
    /// The root that its checkpoint says, whoever signed it.
    root: Hash,
    done: u64,
    length: u64,
}

/// What there is of the same export, up to the last event whose hashes are there too.
fn begun(file: &mut File, organization: &Trail, after: u64) -> std::io::Result<Option<Begun>> {
    let mut reader = BufReader::new(file);
    let (mut text, mut length) = (vec![], 0);
    let mut begun: Option<Begun> = None;
    for number in 1.. {
        text.clear();
        let read = (&mut reader).take(LINE_BYTES_MAX as u64).read_until(b'\n', &mut text)? as u64;
        if text.last() != Some(&b'\n') {
            break;
        }
        length += read;
        match (number, serde_json::from_slice(&text), &mut begun) {
            (1, Ok(Line::Header(header)), begun)
                if header.organization == organization.as_ref() && header.from == after + 1 && header.complete =>
            {
                *begun = Some(Begun { to: header.to, root: Hash::default(), done: after, length: 0 });
            }
            (2, Ok(Line::Checkpoint(signed)), Some(begun)) => {
                let text = signed.note.split_once("\n\n").map(|(text, _)| format!("{text}\n"));
                let Some(Ok(checkpoint)) = text.map(|text| text.parse::<Checkpoint>()) else { break };
                (begun.root, begun.length) = (checkpoint.root, length);
            }
            (3.., Ok(Line::Event(_) | Line::Record(_)), Some(_)) => {}
            (3.., Ok(Line::Hashes(hashes)), Some(begun)) => {
                begun.done = hashes.first + hashes.hashes.len() as u64 - 1;
                begun.length = length;
            }
            _ => break,
        }
    }
    Ok(begun.filter(|begun| begun.length > 0))
}

/// Verifies a bundle. Reads three things: the bundle, the keys, and an older checkpoint.
pub(super) fn verify(
    bundle: &Path,
    keys: &[VerifierKey],
    since: Option<&Path>,
    (witnesses, quorum): (&[WitnessKey], Option<usize>),
) -> Result<ExitCode, Failure> {
    let quorum = Quorum::new(witnesses.to_vec(), quorum).map_err(|error| misused(error, None))?;
    let unreadable =
        |path: &Path, error: std::io::Error| failed(format!("cannot read {}: {error}", path.display()), None);
    let older = match since {
        None => None,
        Some(path) => {
            let file = File::open(path).map_err(|error| unreadable(path, error))?;
            let checkpoint = older(BufReader::new(file), keys);
            Some(checkpoint.map_err(|error| failed(format!("{} does not count: {error}", path.display()), None))?)
        }
    };
    let file = File::open(bundle).map_err(|error| unreadable(bundle, error))?;
    let report =
        verify_bundle(BufReader::new(file), keys, older.as_ref(), &quorum).map_err(|error| failed(error, None))?;
    if let (true, Some(header), Some(checkpoint)) = (report.is_well(), &report.header, &report.checkpoint) {
        let of = &header.organization;
        let what = match header.complete {
            true if header.from > header.to => format!("no events of {of} follow event {}", header.to),
            true => format!("all events from {} to {} of {of}", header.from, header.to),
            false => format!("{} events of {of}, each by itself", report.events),
        };
        let older = older.map_or(String::new(), |older| format!(", and the first {} as they were then", older.size));
        let others = if header.complete { "" } else { "; whether there are others is not shown" };
        let cosigned: String = report.cosigned.iter().map(|cosigned| format!("cosigned by {cosigned}\n")).collect();
        return Ok(print(&format!(
            "verified: {what}, under the checkpoint of {} events{older}{others}\n{cosigned}",
            checkpoint.size
        )));
    }
    let mut text: String = report.findings.iter().map(|finding| format!("{finding}\n")).collect();
    if report.more > 0 {
        text.push_str(&format!("and {} more\n", report.more));
    }
    print(&text);
    Err(failed(format!("{} is not what was signed", bundle.display()), "what is wrong stands above, a line each"))
}
