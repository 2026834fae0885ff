//! Where PostgreSQL keeps its data: a file system of limited size, so that it can be filled.
//!
//! Where nothing can be mounted, the data lies in an ordinary folder, and a full disk is played by the proxies.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// The place of the server's data.
pub struct Volume {
    path: PathBuf,
    mounted: bool,
}

impl Volume {
    /// A volume of so many megabytes at `path`.
    pub fn make(path: PathBuf, megabytes: u64) -> Result<Self, String> {
        std::fs::create_dir_all(&path).map_err(|error| format!("cannot make {}: {error}", path.display()))?;
        let options = format!("size={megabytes}m,mode=0755");
        let mounted =
            mount(Some("tmpfs"), &path, Some("tmpfs"), MsFlags::MS_NOSUID | MsFlags::MS_NODEV, Some(options.as_str()));
        Ok(Self { path, mounted: mounted.is_ok() })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it can be filled.
    pub fn can_be_filled(&self) -> bool {
        self.mounted
    }

    fn filler(&self) -> PathBuf {
        self.path.join("filler")
    }

    /// Takes all the space that is left.
    pub fn fill(&self) -> std::io::Result<()> {
        let mut file = File::create(self.filler())?;
        for size in [1 << 20, 4096, 512] {
            let block = vec![0u8; size];
            while file.write_all(&block).is_ok() {}
        }
        Ok(())
    }

    /// Gives it back.
    pub fn empty(&self) {
        let _ = std::fs::remove_file(self.filler());
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        if self.mounted {
            let _ = umount2(&self.path, MntFlags::MNT_DETACH);
        }
    }
}
