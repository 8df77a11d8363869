//! Network namespaces: found again by number, entered by a thread of their own, locked.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::thread::LinkNameSpaceType;

use super::Space;

/// Where `ip netns` keeps names.
const NAMED: [&str; 2] = ["/run/netns", "/var/run/netns"];
/// The most files that are looked at to find a namespace again.
const LOOK_MAX: usize = 65_536;
/// How long another process of squall may be at work on a namespace.
const PATIENCE: Duration = Duration::from_secs(5);

/// The namespace whose file this is.
pub(super) fn space(path: &Path) -> io::Result<Space> {
    let inode = std::fs::metadata(path)?.ino();
    Ok(Space { path: path.to_owned(), inode })
}

/// The file of a namespace: where it was, or wherever something still lives in it.
pub(super) fn open(space: &Space) -> io::Result<Option<File>> {
    let same = |path: &Path| -> Option<File> {
        // Without following it: this says the number without opening what may be anything.
        let found = std::fs::metadata(path).ok()?;
        if found.ino() != space.inode {
            return None;
        }
        let file = File::open(path).ok()?;
        // What was opened is what was looked at, and a namespace.
        let entered = file.metadata().ok()?;
        let is_space =
            path.starts_with("/proc") || rustix::fs::fstatfs(&file).is_ok_and(|fs| fs.f_type == NSFS);
        (entered.ino() == space.inode && is_space).then_some(file)
    };
    if let Some(file) = same(&space.path) {
        return Ok(Some(file));
    }
    Ok(elsewhere()?.find_map(|path| same(&path)))
}

/// Magic number of the file system of namespaces (`linux/magic.h`).
const NSFS: i64 = 0x6e73_6673;

fn elsewhere() -> io::Result<impl Iterator<Item = PathBuf>> {
    let names = NAMED.iter().filter_map(|folder| std::fs::read_dir(folder).ok()).flatten().flatten();
    let names = names.map(|entry| entry.path());
    let processes = std::fs::read_dir("/proc")?.flatten().map(|entry| entry.path().join("ns/net"));
    Ok([PathBuf::from("/proc/self/ns/net")].into_iter().chain(names).chain(processes).take(LOOK_MAX))
}

/// Locks a namespace for the life of the returned file: nobody else of squall changes it meanwhile. The lock is on the
/// namespace itself, so it needs no file and leaves none.
pub(super) async fn lock(file: File) -> io::Result<File> {
    let patience = async {
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(()),
                Err(std::fs::TryLockError::WouldBlock) => tokio::time::sleep(Duration::from_millis(1)).await,
                Err(std::fs::TryLockError::Error(error)) => return Err(error),
            }
        }
    };
    match tokio::time::timeout(PATIENCE, patience).await {
        Ok(locked) => locked.map(|()| file),
        Err(_) => {
            let text = format!("another squall has been at work on this network for {PATIENCE:?}");
            Err(io::Error::new(io::ErrorKind::TimedOut, text))
        }
    }
}

/// Does something in a namespace, or in a new one, on a thread of its own that ends with it.
pub(super) async fn inside<T: Send + 'static>(
    space: Option<File>,
    act: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let runtime = tokio::runtime::Handle::current();
    let (told, hears) = tokio::sync::oneshot::channel();
    std::thread::Builder::new().name("netns".to_owned()).spawn(move || {
        let moved = match space {
            Some(file) => {
                rustix::thread::move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
            }
            None => leave(),
        };
        let _inside = runtime.enter();
        // Whoever asked may have gone.
        let _ = told.send(moved.map_err(io::Error::from).and_then(|()| act()));
    })?;
    hears.await.map_err(|_| io::Error::other("the thread in the namespace has ended"))?
}

/// Moves this thread into a namespace, for good.
///
/// # Errors
/// It has gone, or this user may not.
pub(crate) fn settle(space: &Space) -> io::Result<()> {
    let file = open(space)?.ok_or(io::ErrorKind::NotFound)?;
    Ok(rustix::thread::move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))?)
}

#[expect(deprecated, reason = "only a new network namespace is unshared, which no other thread can feel")]
fn leave() -> rustix::io::Result<()> {
    rustix::thread::unshare(rustix::thread::UnshareFlags::NEWNET)
}
