//! What to do about data that another major version made.
//!
//! PostgreSQL opens data only with the major version that made it, and nobody should have to find out at that moment
//! how to go on. So the commands are written out, with the real paths, in the order in which they work.

use std::path::Path;

use super::cluster::NAME;
use super::find::{self, OLDEST_MAJOR};

/// What the commands depend on.
pub(super) struct Situation<'a> {
    pub cluster: &'a Path,
    /// The major that made the data.
    pub made: u32,
    /// Where the programs of a newer major are on this machine.
    pub newer: Option<&'a Path>,
    /// The account that has to run PostgreSQL's programs, if that is another one.
    pub account: Option<&'a str>,
    /// What would make fetching work.
    pub to_fetch: Option<String>,
}

/// Several lines: that nothing happened, and both ways.
pub(super) fn both(situation: &Situation) -> String {
    let Situation { made, .. } = situation;
    let open = if *made < OLDEST_MAJOR {
        format!("     not here: the service needs PostgreSQL {OLDEST_MAJOR} or newer\n")
    } else {
        keep(situation)
    };
    let other = match situation.newer {
        Some(newer) => upgrade(situation, newer),
        None => dump(situation),
    };
    format!(
        "Nothing was touched. There are two ways on; OLD is the folder of the programs of PostgreSQL {made}.\n  \
         1. Go on with PostgreSQL {made}:\n{open}{other}"
    )
}

fn keep(situation: &Situation) -> String {
    let made = situation.made;
    let mut text = match find::install_command(made) {
        Some(command) => format!("     install it (`{command}`)"),
        None => "     install it".to_owned(),
    };
    text += ", and name its programs if they are not found: TENANCY_DATABASE__POSTGRES_BIN_DIR=OLD\n";
    if let Some(remedy) = &situation.to_fetch {
        text += &format!("     or {remedy}\n");
    }
    text
}

/// In place: the old data is kept under another name.
fn upgrade(situation: &Situation, newer: &Path) -> String {
    let cluster = quoted(situation.cluster);
    let old = quoted(&situation.cluster.with_extension(situation.made.to_string()));
    let newer = quoted(newer);
    let run = as_account(situation.account);
    let make = match situation.account {
        Some(account) => format!("install -d -m 700 -o {account} {cluster}"),
        None => format!("mkdir -m 700 {cluster}"),
    };
    format!(
        "  2. Move the data to the newer PostgreSQL of this machine (it stays where it is as well, in {old}):\n       \
         cd /tmp && mv {cluster} {old} && {make}\n       \
         {run}{newer}/initdb -D {cluster} -U {NAME} -E UTF8 --locale=C --data-checksums --auth-local=trust --auth-host=reject\n       \
         {run}{newer}/pg_upgrade -U {NAME} -b OLD -B {newer} -d {old} -D {cluster}"
    )
}

/// Into a PostgreSQL that runs elsewhere, which may have any major that the service knows.
fn dump(situation: &Situation) -> String {
    let cluster = quoted(situation.cluster);
    let run = as_account(situation.account);
    format!(
        "  2. Move the data to a PostgreSQL of yours, with DATABASE_URL set to an empty database of it:\n       \
         {run}OLD/pg_ctl -w -D {cluster} -o \"-k /tmp -p 54329 -c listen_addresses=\" -l /dev/null start\n       \
         OLD/pg_dump -h /tmp -p 54329 -U {NAME} --no-owner {NAME} | psql -v ON_ERROR_STOP=1 \"$DATABASE_URL\"\n       \
         {run}OLD/pg_ctl -w -D {cluster} stop\n     \
         and start the service with the same DATABASE_URL."
    )
}

fn as_account(account: Option<&str>) -> String {
    match account {
        Some(account) if cfg!(target_os = "linux") => format!("runuser -u {account} -- "),
        Some(account) => format!("sudo -u {account} "),
        None => String::new(),
    }
}

/// As a shell takes it.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+".contains(c);
    if text.chars().all(plain) { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::{Situation, both, quoted};
    use std::path::Path;

    fn situation() -> Situation<'static> {
        let cluster = Path::new("/var/lib/tenancy/postgres");
        Situation { cluster, made: 15, newer: None, account: None, to_fetch: None }
    }

    #[test]
    fn writes_the_upgrade_out_where_a_newer_major_is_at_hand() {
        let newer = Some(Path::new("/usr/lib/postgresql/17/bin"));
        let text = both(&Situation { newer, account: Some("postgres"), ..situation() });
        assert!(text.contains("mv /var/lib/tenancy/postgres /var/lib/tenancy/postgres.15"), "{text}");
        assert!(text.contains("-B /usr/lib/postgresql/17/bin -d /var/lib/tenancy/postgres.15"), "{text}");
        assert!(text.contains("-o postgres /var/lib/tenancy/postgres"), "{text}");
    }

    #[test]
    fn offers_a_dump_where_there_is_nothing_to_upgrade_to() {
        let text = both(&situation());
        assert!(text.contains("pg_dump") && !text.contains("pg_upgrade"), "{text}");
    }

    #[test]
    fn does_not_promise_to_open_what_is_too_old() {
        let text = both(&Situation { made: 13, to_fetch: Some("let it be FETCHed".into()), ..situation() });
        assert!(text.contains("needs PostgreSQL 15 or newer") && !text.contains("FETCH"), "{text}");
    }

    #[test]
    fn quotes_what_a_shell_would_split() {
        assert_eq!(quoted(Path::new("/a b/it's")), r"'/a b/it'\''s'");
    }
}
