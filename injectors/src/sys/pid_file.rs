//! Pid files: small regular files that a user names, whatever they turn out to be.

use std::fs::{File, Metadata};
use std::io;
use std::path::Path;

use rustix::fs::{Mode, OFlags};

/// What of a pid file is read, in bytes: a number, and what some programs write behind it.
const PID_FILE_MAX: u64 = 64;

/// The number in a pid file.
///
/// # Errors
/// It cannot be read, is no regular file, or holds no number.
pub(super) fn read(path: &Path) -> io::Result<u32> {
    whole_file(path)?.trim().parse().map_err(|_| io::Error::other("it holds no process id"))
}

/// The text of a small regular file. A pipe would keep squall waiting, a device fill its memory.
fn whole_file(path: &Path) -> io::Result<String> {
    let regular = |meta: Metadata| {
        if meta.is_file() { Ok(()) } else { Err(io::Error::other("it is no regular file")) }
    };
    // Before it is opened, as opening some devices does something; and again, as it may be another one by then.
    regular(std::fs::metadata(path)?)?;
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    regular(file.metadata()?)?;
    io::read_to_string(io::Read::take(file, PID_FILE_MAX))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_pid_file_that_is_none_is_an_error_at_once_whatever_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let (pipe, long) = (folder.path().join("pipe"), folder.path().join("long"));
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        std::fs::write(&long, vec![b'7'; 1 << 20]).unwrap();
        let (done, heard) = std::sync::mpsc::channel();
        let link = folder.path().join("link");
        std::os::unix::fs::symlink("/dev/zero", &link).unwrap();
        let all = ["/dev/zero".into(), pipe, link, folder.path().to_owned(), long];
        std::thread::spawn(move || done.send(all.map(|path| read(&path).map_err(|e| e.to_string()))));
        let [device, pipe, link, dir, long] =
            heard.recv_timeout(Duration::from_secs(5)).expect("an answer, whatever it is");
        for none in [device, pipe, link, dir] {
            assert_eq!(none.unwrap_err(), "it is no regular file");
        }
        assert_eq!(long.unwrap_err(), "it holds no process id");
        drop(folder);
    }
}
