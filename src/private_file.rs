//! Files that only their owner may read: keys.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// The largest private file that is read, in bytes.
const BYTES_MAX: u64 = 64 * 1024;

/// Why a private file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file system refused.
    #[error("cannot use {path}: {source}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Others may read it.
    #[error("{0} can be read by others: set its mode to 0600")]
    Open(PathBuf),
    /// Its content could not be made.
    #[error("cannot make {path}: {reason}")]
    Make {
        /// Which file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

/// Reads a private file, or makes it with mode 0600. Processes that start at the same time end with the same content,
/// and a process that is killed leaves a whole file or none.
pub fn read_or_create(path: &Path, make: impl FnOnce() -> Result<Vec<u8>, String>) -> Result<Vec<u8>, Error> {
    let io = |source| Error::Io { path: path.to_owned(), source };
    if !path.try_exists().map_err(io)? {
        let content = make().map_err(|reason| Error::Make { path: path.to_owned(), reason })?;
        create(path, &content).map_err(io)?;
    }
    read(path)?.ok_or_else(|| io(std::io::ErrorKind::NotFound.into()))
}

/// Reads a private file, if it is there.
pub fn read(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    let io = |source| Error::Io { path: path.to_owned(), source };
    let file = match File::open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        file => file.map_err(io)?,
    };
    if file.metadata().map_err(io)?.permissions().mode() & 0o077 != 0 {
        return Err(Error::Open(path.to_owned()));
    }
    let mut content = Vec::new();
    file.take(BYTES_MAX).read_to_end(&mut content).map_err(io)?;
    Ok(Some(content))
}

fn create(path: &Path, content: &[u8]) -> std::io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".{}-{:016x}.new", std::process::id(), rand::random::<u64>()));
    let temporary = directory.join(name);
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(content)?;
    file.sync_all()?;
    // A link, unlike a rename, does not replace what somebody else made meanwhile.
    let linked = std::fs::hard_link(&temporary, path);
    std::fs::remove_file(&temporary)?;
    match linked {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(error),
        _ => File::open(directory)?.sync_all(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn many_that_start_at_once_end_with_the_same_content() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        let read = |number: usize| read_or_create(&path, || Ok(number.to_string().into_bytes())).unwrap();
        let contents: Vec<Vec<u8>> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..32).map(|number| scope.spawn(move || read(number))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(contents.iter().all(|content| *content == contents[0]), "{contents:?}");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1, "nothing is left beside it");
    }
}
