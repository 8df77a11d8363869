//! Reading what a user names: bounded in size and in time, whatever it turns out to be. A pipe such as `<(…)` is as
//! good as a file; one that nobody writes into, or a device that never ends, must not hold squall up.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

/// How long a pipe or a device may take to be read to its end.
const WITHIN: Duration = Duration::from_secs(10);

/// All bytes of a file, a pipe or a device.
///
/// # Errors
/// It cannot be read, has more bytes than `most`, or does not end within ten seconds.
pub(crate) fn bytes(path: &Path, most: usize) -> io::Result<Vec<u8>> {
    within(path, most, WITHIN)
}

fn within(path: &Path, most: usize, limit: Duration) -> io::Result<Vec<u8>> {
    let meta = std::fs::metadata(path)?;
    if meta.is_dir() {
        return Err(io::Error::other("it is a folder"));
    }
    if meta.is_file() {
        return whole(path, most);
    }
    let (done, read) = mpsc::channel();
    let owned = path.to_owned();
    // Opening a pipe waits for its writer, without end. The thread then stays behind; it holds nothing, and ends with
    // the process at the latest.
    std::thread::Builder::new().name("reading".to_owned()).spawn(move || {
        // Nobody waits any more if the time is up.
        let _ = done.send(whole(&owned, most));
    })?;
    read.recv_timeout(limit).unwrap_or_else(|_| {
        Err(io::Error::other(format!(
            "it is no regular file, and it did not end within {} s",
            limit.as_secs()
        )))
    })
}

fn whole(path: &Path, most: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(most as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > most {
        return Err(io::Error::other(format!("it is larger than {most} bytes")));
    }
    Ok(bytes)
}

/// The text of bytes in UTF-8, without the byte order mark that some editors put first.
///
/// # Errors
/// In words: which encoding it has instead, or where it is no text.
pub(crate) fn text(bytes: Vec<u8>) -> Result<String, String> {
    let wide = match bytes.as_slice() {
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => true,
        [a, b, c, d, ..] => matches!((a, b, c, d), (0, 1.., 0, 1..) | (1.., 0, 1.., 0)),
        _ => false,
    };
    if wide {
        return Err("it is UTF-16 text: save it as UTF-8".to_owned());
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = good.split(|byte| *byte == b'\n').count();
        let begin = good.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let column = String::from_utf8_lossy(&good[begin..]).chars().count() + 1;
        format!("it is not UTF-8 text: see line {line}, column {column}")
    })?;
    Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_never_ends_or_is_no_file_is_given_up() {
        let short = Duration::from_millis(200);
        let error = |path: &Path| within(path, 1000, short).unwrap_err().to_string();
        assert!(error(Path::new("/")).contains("folder"));
        assert!(error(Path::new("/dev/zero")).contains("larger than 1000"));
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        assert!(error(&pipe).contains("did not end within"));
        // The first pipe still has its reader.
        let written = folder.path().join("written");
        assert!(std::process::Command::new("mkfifo").arg(&written).status().unwrap().success());
        let other = written.clone();
        let writer = std::thread::spawn(move || std::fs::write(other, "a: 1\n").unwrap());
        assert_eq!(
            within(&written, 1000, Duration::from_secs(5)).unwrap(),
            b"a: 1\n",
            "a pipe with a writer is read"
        );
        writer.join().unwrap();
    }

    #[test]
    fn text_is_utf_8_and_anything_else_is_named() {
        assert_eq!(text(b"\xef\xbb\xbfa: 1".to_vec()).unwrap(), "a: 1");
        for wide in [&b"\xff\xfea\0"[..], b"\xfe\xff\0a", b"a\0:\0", b"\0a\0:"] {
            assert!(text(wide.to_vec()).unwrap_err().contains("UTF-16"), "{wide:?}");
        }
        assert!(text("ok\nnaïf ".bytes().chain([0xe9]).collect()).unwrap_err().contains("line 2, column 6"));
        assert_eq!(text(Vec::new()).unwrap(), "");
    }
}
