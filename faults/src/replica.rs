//! A service process: started, killed and started again, with a clock of its own that can be set.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Sets the clock of a program from a file, where it is installed.
pub const FAKETIME: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";
/// How long a service may take to stop when it is asked to.
const STOP_WAIT: Duration = Duration::from_secs(40);
/// How far back tokens are issued, so that a clock that steps back does not see tokens from the future.
const TOKENS_ISSUED: &str = "-2h";

/// What all replicas of a run have in common.
#[derive(Clone)]
pub struct Common {
    /// The program.
    pub program: PathBuf,
    /// The folder of the run.
    pub directory: PathBuf,
    /// Whether clocks can be set.
    pub clocks: bool,
}

/// One replica.
pub struct Replica {
    common: Common,
    /// Which one.
    pub number: usize,
    folder: PathBuf,
    port: u16,
    database: u16,
    clock: PathBuf,
    /// How far its clock is off, in seconds.
    pub clock_off: AtomicI64,
    state: Mutex<State>,
    /// How often it ended without having been killed.
    pub ended_by_itself: AtomicU64,
}

struct State {
    child: Option<Child>,
    not_before: Instant,
    wanted: bool,
}

impl Replica {
    /// A replica that listens on `port` and finds its database on `database`, both of 127.0.0.1.
    pub fn make(common: &Common, number: usize, port: u16, database: u16) -> std::io::Result<Self> {
        let folder = common.directory.join(format!("replica-{number}"));
        std::fs::create_dir_all(&folder)?;
        let replica = Self {
            common: common.clone(),
            number,
            clock: folder.join("clock"),
            folder,
            port,
            database,
            clock_off: AtomicI64::new(0),
            state: Mutex::new(State { child: None, not_before: Instant::now(), wanted: true }),
            ended_by_itself: AtomicU64::new(0),
        };
        replica.set_clock(0)?;
        Ok(replica)
    }

    /// The key of its issuer; all replicas have to have the same.
    pub fn issuer_key(&self) -> PathBuf {
        self.folder.join("issuer.pem")
    }

    /// Its log: JSON lines of all its lives.
    pub fn log(&self) -> PathBuf {
        self.common.directory.join(format!("replica-{}.log", self.number))
    }

    /// The address of one of its routes.
    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// The port that it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Sets its clock so many seconds off.
    pub fn set_clock(&self, seconds: i64) -> std::io::Result<()> {
        let fresh = self.clock.with_extension("new");
        std::fs::write(&fresh, format!("{seconds:+}\n"))?;
        self.clock_off.store(seconds, Ordering::Relaxed);
        // In one step: a service that reads while it is written would have no clock at all.
        std::fs::rename(fresh, &self.clock)
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.common.program);
        let inherited = std::env::vars().filter(|(name, _)| name.starts_with("TENANCY_") || name == "DATABASE_URL");
        for (name, _) in inherited {
            command.env_remove(name);
        }
        let variables = [
            ("DATABASE_URL", format!("postgres://tenancy@127.0.0.1:{}/tenancy", self.database)),
            ("TENANCY_DATA_DIR", self.folder.display().to_string()),
            ("TENANCY_LISTEN", format!("127.0.0.1:{}", self.port)),
            // A key for tests: 32 bytes of zeros.
            ("TENANCY_SECRETS__MASTER_KEY", format!("{}=", "A".repeat(43))),
            ("TENANCY_SECRETS__AUDIT_KEYS", format!("{}=", "A".repeat(43))),
            ("TENANCY_ACCESS__BUILTIN_ISSUER", "true".to_owned()),
            ("TENANCY_ACCESS__APPROVAL_REQUIRED", "true".to_owned()),
            ("TENANCY_DATABASE__PARTITIONS", "4".to_owned()),
            ("TENANCY_DATABASE__CONNECTIONS_MAX", "24".to_owned()),
            ("TENANCY_ORGANIZATIONS__RESTORE_DAYS", "1".to_owned()),
            ("TENANCY_PLANS__FREE__LIMITS__MEMBERS", "5".to_owned()),
            ("TENANCY_PLANS__FREE__LIMITS__PROJECTS", "4".to_owned()),
            ("TENANCY_PLANS__TEAM__LIMITS__MEMBERS", "6".to_owned()),
            ("TENANCY_HTTP__SHUTDOWN_GRACE_SECONDS", "10".to_owned()),
            // The log is read again and again meanwhile.
            ("TENANCY_AUDIT__VERIFY_REST_SECONDS", "1".to_owned()),
            // One receiver on this machine, which has everything go wrong with it.
            ("TENANCY_WEBHOOKS__HTTP_ALLOWED", "true".to_owned()),
            ("TENANCY_WEBHOOKS__ADDRESSES_ALLOWED", "127.0.0.1".to_owned()),
            ("TENANCY_WEBHOOKS__TIMEOUT_MS", "1500".to_owned()),
            ("TENANCY_WEBHOOKS__RETRY_SECONDS", vec!["1"; 50].join(",")),
            // A few callers at one address are the load here.
            ("TENANCY_RATE_LIMITS__ENABLED", "false".to_owned()),
            ("TENANCY_LOG_FORMAT", "json".to_owned()),
            ("TENANCY_LOG", "info".to_owned()),
        ];
        command.envs(variables).stdin(Stdio::null());
        command
    }

    fn start(&self) -> std::io::Result<Child> {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.log())?;
        let mut command = self.command();
        command.arg("serve").stdout(Stdio::null()).stderr(log);
        if self.common.clocks {
            command.env("LD_PRELOAD", FAKETIME).env("FAKETIME_TIMESTAMP_FILE", &self.clock);
            // Looked at once a second: each time would cost the service more than all its work.
            command.env("FAKETIME_CACHE_DURATION", "1").env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
            command.env("DONT_FAKE_MONOTONIC", "1");
        }
        command.spawn()
    }

    /// Mints a token that is good for the whole run.
    pub fn token(&self, email: &str, operator: bool) -> Result<String, String> {
        let mut command = self.command();
        command.args(["token", "--ttl", "8760h", "--email", email]);
        if operator {
            command.arg("--operator");
        }
        if self.common.clocks {
            command.env("LD_PRELOAD", FAKETIME).env("FAKETIME", TOKENS_ISSUED);
        }
        let output = command.output().map_err(|error| format!("{}: {error}", self.common.program.display()))?;
        if !output.status.success() {
            return Err(format!("no token: {}", String::from_utf8_lossy(&output.stderr)));
        }
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// Starts it, and again whenever it is gone, as long as it is wanted.
    pub async fn supervise(&self) {
        loop {
            {
                let mut state = self.state.lock().unwrap();
                let gone = match state.child.as_mut().map(Child::try_wait) {
                    _ if !state.wanted => false,
                    None => true,
                    Some(Ok(None)) => false,
                    Some(_) => {
                        self.ended_by_itself.fetch_add(1, Ordering::Relaxed);
                        state.child = None;
                        state.not_before = Instant::now() + Duration::from_millis(200);
                        true
                    }
                };
                if gone && Instant::now() >= state.not_before {
                    state.child = self.start().ok();
                    state.not_before = Instant::now() + Duration::from_millis(200);
                }
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Kills it; it is started again after `pause`.
    pub fn kill(&self, pause: Duration) {
        let mut state = self.state.lock().unwrap();
        if let Some(mut child) = state.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        state.not_before = Instant::now() + pause;
    }

    /// Has one that was stopped start again.
    pub fn resume(&self) {
        self.state.lock().unwrap().wanted = true;
    }

    /// Whether it noticed nothing in the log that a service did not write, and what else.
    pub fn saw_nothing_altered(&self) -> Result<(), String> {
        let output = self.command().args(["audit", "status"]).output().map_err(|error| error.to_string())?;
        let said = || [output.stdout.as_slice(), &output.stderr].concat();
        match output.status.success() {
            true => Ok(()),
            false => Err(format!("replica {}: {}", self.number, String::from_utf8_lossy(&said()))),
        }
    }

    /// Asks it to stop, and waits for it. Says how it ended.
    pub async fn stop(&self) -> Result<(), String> {
        let child = {
            let mut state = self.state.lock().unwrap();
            state.wanted = false;
            state.child.take()
        };
        let Some(mut child) = child else { return Ok(()) };
        let _ = kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM);
        let deadline = Instant::now() + STOP_WAIT;
        while Instant::now() < deadline {
            match child.try_wait() {
                Ok(Some(status)) if status.success() => return Ok(()),
                Ok(Some(status)) => return Err(format!("replica {} ended with {status}", self.number)),
                _ => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
        let _ = (child.kill(), child.wait());
        Err(format!("replica {} did not stop within {} s", self.number, STOP_WAIT.as_secs()))
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.kill(Duration::MAX.min(Duration::from_secs(3600)));
    }
}

/// Whether the clocks of services can be set here.
pub fn clocks_can_be_set() -> bool {
    Path::new(FAKETIME).exists()
}

/// Gives the key of the first replica's issuer to the others, so that a token is good at each.
pub fn share_issuer(replicas: &[std::sync::Arc<Replica>]) -> std::io::Result<()> {
    let Some((first, others)) = replicas.split_first() else { return Ok(()) };
    let key = std::fs::read(first.issuer_key())?;
    for other in others {
        use std::os::unix::fs::OpenOptionsExt;
        let mut file =
            std::fs::OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(other.issuer_key())?;
        file.write_all(&key)?;
    }
    Ok(())
}
