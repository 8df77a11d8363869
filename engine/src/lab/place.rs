//! Where labs keep their sockets and the detached one its state: one private folder per user, one folder per lab in it.
//!
//! Invariants: nobody else can reach the folders (0700, owned by this user, no symlink); socket paths stay short enough
//! for every Unix; a lab's folder is named for its supervisor (pid and start time), so one that a killed supervisor left
//! is recognised and removed by the next start.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use injectors::target::ProcessId;

use super::{LabError, NAME, process};

/// The longest path of the folder, in bytes: leaves room for `/lab-PID-TICKS/NAME.sock` below 100 bytes.
const ROOT_MAX: usize = 52;

/// The private folder in which labs live.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    root: PathBuf,
}

impl Place {
    /// This user's: `$XDG_RUNTIME_DIR/squall`, else `squall-UID` in the folder for temporary files.
    ///
    /// # Errors
    /// The folder cannot be made, or is not private.
    pub fn user() -> Result<Self, LabError> {
        let uid = injectors::sys::host::user();
        let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(|dir| PathBuf::from(dir).join("squall"));
        let own = runtime.filter(|dir| dir.is_absolute() && dir.parent().is_some_and(Path::is_dir));
        let temp = || std::env::temp_dir().join(format!("squall-{uid}"));
        let short = |dir: &PathBuf| dir.as_os_str().len() <= ROOT_MAX;
        let root = own.filter(short).or_else(|| Some(temp()).filter(short));
        Self::at(&root.unwrap_or_else(|| PathBuf::from(format!("/tmp/squall-{uid}"))))
    }

    /// This folder; it is made if it is missing.
    ///
    /// # Errors
    /// Its path is too long for sockets, it cannot be made, or it is not private.
    pub fn at(root: &Path) -> Result<Self, LabError> {
        let bad = |why: String| LabError::Folder { path: root.to_owned(), why };
        let root = std::path::absolute(root).map_err(|e| bad(e.to_string()))?;
        if root.as_os_str().len() > ROOT_MAX {
            return Err(bad(format!("longer than {ROOT_MAX} bytes: its sockets would not be reachable")));
        }
        match DirBuilder::new().mode(0o700).create(&root) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(bad(e.to_string())),
            _ => {}
        }
        let meta = fs::symlink_metadata(&root).map_err(|e| bad(e.to_string()))?;
        if !meta.is_dir() || meta.uid() != injectors::sys::host::user() {
            return Err(bad("not a folder of this user".to_owned()));
        }
        if meta.mode() & 0o077 != 0 {
            return Err(bad("open to other users; its mode must be 0700".to_owned()));
        }
        Ok(Self { root })
    }

    /// The folder itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The state file of the detached lab.
    pub fn state_file(&self) -> PathBuf {
        self.root.join(format!("lab-{NAME}.json"))
    }

    /// The folder of the lab with this supervisor.
    pub(super) fn folder(&self, supervisor: ProcessId) -> PathBuf {
        self.root.join(format!("lab-{}-{}", supervisor.pid, supervisor.start_ticks))
    }

    /// Makes the folder of the lab with this supervisor.
    pub(super) fn make_folder(&self, supervisor: ProcessId) -> Result<PathBuf, LabError> {
        let path = self.folder(supervisor);
        let made = DirBuilder::new().mode(0o700).create(&path);
        made.map_err(|e| LabError::Folder { path: path.clone(), why: e.to_string() })?;
        Ok(path)
    }

    /// Removes the folders that killed supervisors left.
    pub(super) fn sweep(&self) {
        let Ok(entries) = fs::read_dir(&self.root) else { return };
        for entry in entries.flatten() {
            let owner = entry.file_name().to_str().and_then(owner);
            if owner.is_some_and(|owner| !process::alive(owner)) {
                // Another start may be sweeping as well.
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }

    /// Takes the right to change the detached lab, until the file is dropped; none while another process has it.
    pub(super) fn try_lock(&self) -> io::Result<Option<File>> {
        let folder = File::open(&self.root)?;
        match folder.try_lock() {
            Ok(()) => Ok(Some(folder)),
            Err(fs::TryLockError::WouldBlock) => Ok(None),
            Err(fs::TryLockError::Error(e)) => Err(e),
        }
    }
}

/// The supervisor for which a folder is named.
fn owner(name: &str) -> Option<ProcessId> {
    let (pid, ticks) = name.strip_prefix("lab-")?.split_once('-')?;
    Some(ProcessId { pid: pid.parse().ok()?, start_ticks: ticks.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_folder_that_others_can_enter_is_refused() {
        let dir = tempfile::tempdir_in("/tmp").unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        assert!(Place::at(dir.path()).unwrap_err().to_string().contains("0700"));
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
        assert!(Place::at(dir.path()).is_ok());
        let link = dir.path().join("link");
        std::os::unix::fs::symlink("/tmp", &link).unwrap();
        assert!(Place::at(&link).is_err());
        assert!(Place::at(&dir.path().join("x".repeat(ROOT_MAX))).is_err());
    }

    #[test]
    fn only_folders_of_ended_supervisors_are_swept() {
        let dir = tempfile::tempdir_in("/tmp").unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
        let place = Place::at(dir.path()).unwrap();
        let me = process::me().unwrap();
        let mine = place.make_folder(me).unwrap();
        let dead = place.make_folder(ProcessId { start_ticks: me.start_ticks + 1, ..me }).unwrap();
        fs::write(dead.join("x.sock"), "").unwrap();
        let foreign = dir.path().join("lab-notes");
        fs::create_dir(&foreign).unwrap();
        place.sweep();
        assert!(mine.exists() && foreign.exists() && !dead.exists());
    }

    #[test]
    fn socket_paths_stay_below_a_hundred_bytes() {
        let longest = ProcessId { pid: 4_194_304, start_ticks: 99_999_999_999 };
        let place = Place { root: PathBuf::from("/".repeat(ROOT_MAX)) };
        assert!(place.folder(longest).join("control.sock").as_os_str().len() < 100);
    }
}
