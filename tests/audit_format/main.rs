//! The formats of exports. Bundles: that `tenancy audit verify`, the Python example and the committed test vectors judge
//! alike. OCSF: that every event has a line that the published schema takes. No database is needed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod history;
mod mutants;
mod ocsf;
mod vectors;

use std::ffi::OsString;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use tenancy::audit::cosignature::{Quorum, WitnessKey};
use tenancy::audit::note::VerifierKey;
use tenancy::audit::verify::{older, verify};

/// What is to be judged.
#[derive(Clone)]
struct Case {
    bundle: Vec<u8>,
    keys: Vec<String>,
    older: Option<Vec<u8>>,
    /// The keys of witnesses, and how many of them it takes.
    witnesses: (Vec<String>, Option<usize>),
}

/// Why it is refused, or `None` where it is accepted: by the code of `tenancy audit verify`.
fn judge(case: &Case) -> Option<String> {
    let keys: Result<Vec<VerifierKey>, _> = case.keys.iter().map(|key| key.parse()).collect();
    let keys = match keys {
        Ok(keys) => keys,
        Err(error) => return Some(error.to_string()),
    };
    let witnesses: Result<Vec<WitnessKey>, _> = case.witnesses.0.iter().map(|key| key.parse()).collect();
    let witnesses = witnesses.map_err(|error| error.to_string());
    let quorum = match witnesses.and_then(|witnesses| Quorum::new(witnesses, case.witnesses.1)) {
        Ok(quorum) => quorum,
        Err(error) => return Some(error),
    };
    let older = match case.older.as_deref().map(|file| older(file, &keys)).transpose() {
        Ok(older) => older,
        Err(error) => return Some(error.to_string()),
    };
    let report = verify(&case.bundle[..], &keys, older.as_ref(), &quorum).unwrap();
    (!report.is_well()).then(|| report.findings.join("; "))
}

/// A Python that has this package.
fn python_with(package: &str) -> Option<OsString> {
    let python = std::env::var_os("PYTHON").unwrap_or_else(|| "python3".into());
    let found = Command::new(&python).args(["-c", &format!("import {package}")]).output();
    if found.is_ok_and(|output| output.status.success()) {
        return Some(python);
    }
    println!("left out: there is no python3 with the package {package}");
    None
}

/// The same by `examples/verify_audit.py`, of many; `None` where there is no Python for it.
fn judge_in_python(cases: &[Case]) -> Option<Vec<Option<String>>> {
    let python = python_with("cryptography")?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/audit_format/judge.py");
    let mut command = Command::new(&python);
    let mut child = command.arg(script).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let lines: String = cases.iter().map(|case| format!("{}\n", as_line(case))).collect();
    let writer = std::thread::spawn(move || input.write_all(lines.as_bytes()));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(output.status.success());
    let verdicts = String::from_utf8(output.stdout).unwrap();
    let verdicts: Vec<Option<String>> =
        verdicts.lines().map(|line| line.strip_prefix("refused:").map(str::to_owned)).collect();
    assert_eq!(verdicts.len(), cases.len());
    Some(verdicts)
}

fn as_line(case: &Case) -> serde_json::Value {
    json!({
        "bundle": STANDARD.encode(&case.bundle),
        "keys": case.keys,
        "older": case.older.as_ref().map(|older| STANDARD.encode(older)),
        "witnesses": case.witnesses.0,
        "quorum": case.witnesses.1,
    })
}
