//! Makes a directory of an archive: whole, flushed and readable to the server's account, or not at all.
//!
//! The archive has a checksum by then, but a mirror may vouch for anything: so nothing in it is taken for granted.

use std::fs::{self, File, Permissions};
use std::io::{BufReader, ErrorKind, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

use flate2::read::GzDecoder;
use indicatif::HumanBytes;
use nix::unistd::geteuid;
use tar::EntryType;

use super::cluster::Site;
use super::error::{Error, NotFetched, io};
use super::find;
use super::locks::{self, Held};

const UNPACKED_BYTES_MAX: u64 = 1024 * 1024 * 1024;
const ENTRIES_MAX: u32 = 50_000;

const UNFINISHED_PREFIX: &str = ".fetch.";

/// Where a build is made ready, beside its place.
pub(super) struct Workshop {
    dir: PathBuf,
    /// Of fetching. It goes with the work into another thread, which ends by itself also when nobody waits for it any
    /// more; and it is freed after the directory has been removed.
    _lock: Held,
}

impl Workshop {
    pub fn open(site: &Site, lock: Held) -> Result<Self, NotFetched> {
        let parent = &site.fetched;
        let doing = || format!("make {}", parent.display());
        // The owner of the directory could lead root's writing elsewhere. They can fetch by themselves.
        let owner = fs::metadata(&site.data_dir).map_err(io(doing()))?.uid();
        if owner != geteuid().as_raw() {
            return Err(NotFetched::ForeignDir { data_dir: site.data_dir.clone() });
        }
        make_dir(parent).map_err(io(doing()))?;
        remove_unfinished(parent).map_err(io(format!("clean up {}", parent.display())))?;
        let dir = parent.join(format!("{UNFINISHED_PREFIX}{}", std::process::id()));
        make_dir(&dir).map_err(io(format!("make {}", dir.display())))?;
        Ok(Self { dir, _lock: lock })
    }

    pub fn archive(&self) -> PathBuf {
        self.dir.join("archive.tar.gz")
    }

    pub fn unpacked(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Unpacks the archive, in which everything has to lie in the folder `name`, and flushes all of it.
    pub fn unpack(&self, name: &str) -> Result<(), String> {
        let told = |error: std::io::Error| causes(&error);
        let file = File::open(self.archive()).map_err(told)?;
        let content = GzDecoder::new(BufReader::new(file)).take(UNPACKED_BYTES_MAX);
        let mut archive = tar::Archive::new(content);
        let (mut entries, mut bytes) = (0, 0_u64);
        for entry in archive.entries().map_err(told)? {
            let mut entry = entry.map_err(told)?;
            let kind = entry.header().entry_type();
            if kind.is_pax_global_extensions() {
                continue;
            }
            let path = entry.path().map_err(told)?.into_owned();
            judge(name, kind, &path, entry.link_name().map_err(told)?.as_deref())?;
            entries += 1;
            bytes = bytes.saturating_add(entry.size());
            if entries > ENTRIES_MAX || bytes > UNPACKED_BYTES_MAX {
                return Err(format!("it unpacks to more than {}", HumanBytes(UNPACKED_BYTES_MAX)));
            }
            // It looks again, and does not write through links that lead out.
            if !entry.unpack_in(&self.dir).map_err(told)? {
                return Err(format!("{} would lie outside", path.display()));
            }
        }
        if !find::holds_server(&self.unpacked(name).join("bin")) {
            return Err(format!("it does not hold {name}/bin/postgres and initdb"));
        }
        settle(&self.unpacked(name)).map_err(told)
    }

    /// Puts the unpacked build in its place.
    pub fn finish(&self, name: &str, target: &Path) -> Result<(), Error> {
        let doing = || format!("put PostgreSQL into {}", target.display());
        fs::rename(self.unpacked(name), target).map_err(io(doing()))?;
        let parent = target.parent().unwrap_or(target);
        File::open(parent).and_then(|dir| dir.sync_all()).map_err(io(doing()))
    }
}

/// Removes what fetches left that were killed. One that had put its build in its place already is followed by no other
/// that would.
pub fn clean_up(site: &Site) {
    let cleaned = || -> std::io::Result<()> {
        let unfinished = |entry: &fs::DirEntry| entry.file_name().to_string_lossy().starts_with(UNFINISHED_PREFIX);
        let left =
            fs::read_dir(&site.fetched).is_ok_and(|mut dir| dir.any(|entry| entry.is_ok_and(|e| unfinished(&e))));
        if left && fs::metadata(&site.data_dir)?.uid() == geteuid().as_raw() {
            let lock = locks::fetch_at_once(&site.data_dir).map_err(std::io::Error::other)?;
            if let Some(_lock) = lock {
                remove_unfinished(&site.fetched)?;
            }
        }
        Ok(())
    };
    if let Err(error) = cleaned() {
        tracing::debug!(%error, "could not remove what fetches have left that were killed");
    }
}

/// A failed attempt leaves nothing; a killed one is cleaned up after by the next, or by the next start.
impl Drop for Workshop {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.dir) {
            tracing::debug!(%error, dir = %self.dir.display(), "could not remove what is not needed any more");
        }
    }
}

/// Readable by the account that the server is given to, whatever the umask.
fn make_dir(dir: &Path) -> std::io::Result<()> {
    match fs::create_dir(dir) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists && !dir.is_symlink() && dir.is_dir() => {}
        result => result?,
    }
    fs::set_permissions(dir, Permissions::from_mode(0o755))
}

fn remove_unfinished(parent: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(parent)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(UNFINISHED_PREFIX) {
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

/// Only folders, files and links, all inside the folder `root`, and no link leads out of it.
fn judge(root: &str, kind: EntryType, path: &Path, link: Option<&Path>) -> Result<(), String> {
    let refused = |why: &str| Err(format!("{} in it {why}", path.display()));
    let depth = match depth_in(path) {
        Some(depth) if path.starts_with(root) => depth,
        _ => return refused("would lie outside"),
    };
    match (kind, link) {
        (EntryType::Directory | EntryType::Regular | EntryType::Continuous, _) => Ok(()),
        // Named from the top of the archive.
        (EntryType::Link, Some(link)) if depth_in(link).is_some() && link.starts_with(root) => Ok(()),
        // Named from where it lies: at most up to the folder `root`.
        (EntryType::Symlink, Some(link)) if depth > 1 && stays_inside(link, depth) => Ok(()),
        (EntryType::Link | EntryType::Symlink, _) => refused("is a link that leads outside"),
        _ => refused("is neither a file nor a folder nor a link"),
    }
}

/// How many names the path has, if it has nothing else.
fn depth_in(path: &Path) -> Option<usize> {
    let named = |component| matches!(component, Component::Normal(_));
    path.components().all(named).then(|| path.components().count())
}

fn stays_inside(link: &Path, depth: usize) -> bool {
    // Without the top folder and the link's own name.
    let mut depth = depth.saturating_sub(2);
    link.components().all(|component| match component {
        Component::Normal(_) => {
            depth += 1;
            true
        }
        Component::CurDir => true,
        Component::ParentDir if depth > 0 => {
            depth -= 1;
            true
        }
        _ => false,
    })
}

/// Opens everything for reading to all, whatever the archive and the umask said, and flushes it.
fn settle(dir: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            settle(&entry.path())?;
        } else if kind.is_file() {
            let file = File::open(entry.path())?;
            let runs = file.metadata()?.mode() & 0o111 != 0;
            file.set_permissions(Permissions::from_mode(if runs { 0o755 } else { 0o644 }))?;
            file.sync_all()?;
        }
    }
    fs::set_permissions(dir, Permissions::from_mode(0o755))?;
    File::open(dir)?.sync_all()
}

/// Unpacking says where, and only its cause says why.
fn causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source()).map(ToString::to_string);
    causes.collect::<Vec<_>>().join(": ")
}

#[cfg(test)]
mod tests {
    use super::judge;
    use std::path::Path;
    use tar::EntryType::{self, Char, Directory, Link, Regular, Symlink};

    fn allowed(kind: EntryType, path: &str, link: Option<&str>) -> bool {
        judge("pg", kind, Path::new(path), link.map(Path::new)).is_ok()
    }

    #[test]
    fn takes_what_builds_are_made_of() {
        assert!(allowed(Directory, "pg/", None));
        assert!(allowed(Regular, "pg/bin/postgres", None));
        assert!(allowed(Symlink, "pg/lib/libpq.so", Some("libpq.so.5.17")));
        assert!(allowed(Symlink, "pg/lib/postgresql/libpq.so", Some("../libpq.so.5")));
        assert!(allowed(Link, "pg/share/timezone/UTC", Some("pg/share/timezone/Etc/UTC")));
    }

    #[test]
    fn refuses_every_way_out() {
        for path in ["../evil", "pg/../../evil", "pg/../pg/x", "/etc/evil", "other/evil", ""] {
            assert!(!allowed(Regular, path, None), "{path}");
        }
        for link in ["/etc/passwd", "../../evil", "../bin/../../../evil", "x/../../../evil"] {
            assert!(!allowed(Symlink, "pg/lib/link", Some(link)), "{link}");
        }
        for link in ["/etc/passwd", "../evil", "pg/../evil", "other/file"] {
            assert!(!allowed(Link, "pg/lib/link", Some(link)), "{link}");
        }
        assert!(!allowed(Symlink, "pg", Some("elsewhere")));
        assert!(!allowed(Char, "pg/null", None));
    }
}
