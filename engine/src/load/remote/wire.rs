//! A connection that carries words: blocking, every read and write with a deadline.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use injectors::sys::timer::monotonic;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::frame::{FRAME_MAX, Frames, STRANGER_MAX, frame};
use super::seal::Seal;
use crate::load::clock::nanos;

/// How much is read at a time.
const CHUNK: usize = 64 * 1024;

/// Why nothing more comes of a connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum WireError {
    /// It ended.
    #[error("it hung up")]
    Closed,
    /// Nothing whole came.
    #[error("it said nothing for {:.0} s", .0.as_secs_f64())]
    Silent(Duration),
    /// It said something that nobody who speaks this protocol says.
    #[error("what it says makes no sense: {0}")]
    Garbled(String),
    /// It said no.
    #[error("it refused: {0}")]
    Refused(String),
    /// The system says that it cannot go on.
    #[error(transparent)]
    Io(io::Error),
}

/// What words are carried by.
pub(super) trait Socket: Read + Write + Send + Sync {
    /// The time for one read.
    fn read_within(&self, limit: Duration) -> io::Result<()>;
    /// The time for one write.
    fn write_within(&self, limit: Duration) -> io::Result<()>;
    /// Another handle of the same connection.
    fn again(&self) -> io::Result<Box<dyn Socket>>;
    /// Ends it, for all handles.
    fn hang_up(&self);
}

macro_rules! socket {
    ($kind:ty) => {
        impl Socket for $kind {
            fn read_within(&self, limit: Duration) -> io::Result<()> {
                self.set_read_timeout(Some(limit.max(Duration::from_millis(1))))
            }

            fn write_within(&self, limit: Duration) -> io::Result<()> {
                self.set_write_timeout(Some(limit))
            }

            fn again(&self) -> io::Result<Box<dyn Socket>> {
                Ok(Box::new(self.try_clone()?))
            }

            fn hang_up(&self) {
                // It has ended already, then.
                let _ = self.shutdown(Shutdown::Both);
            }
        }
    };
}

socket!(TcpStream);
socket!(UnixStream);

/// The listening side.
pub(super) struct Ear {
    socket: Box<dyn Socket>,
    frames: Frames,
    seal: Option<Seal>,
}

/// The speaking side.
pub(super) struct Mouth {
    socket: Box<dyn Socket>,
    seal: Option<Seal>,
}

/// Both sides of a connection. A write that the other side does not take within the lease is the end of it.
pub(super) fn wire(socket: Box<dyn Socket>) -> io::Result<(Ear, Mouth)> {
    socket.write_within(super::LEASE)?;
    let other = socket.again()?;
    Ok((Ear { socket, frames: Frames::default(), seal: None }, Mouth { socket: other, seal: None }))
}

impl Ear {
    /// From now on everything that comes is sealed.
    pub(super) fn sealed(&mut self, seal: Seal) {
        self.seal = Some(seal);
    }

    /// The next word, whole, within this time.
    pub(super) fn hear<T: DeserializeOwned>(&mut self, within: Duration) -> Result<T, WireError> {
        let until = monotonic().saturating_add(nanos(within));
        let most = if self.seal.is_some() { FRAME_MAX } else { STRANGER_MAX };
        let mut chunk = vec![0; CHUNK];
        loop {
            let next = self.frames.next(most);
            let next = next.map_err(|long| WireError::Garbled(format!("a frame of {} bytes", long.0)))?;
            if let Some(content) = next {
                return self.word(content);
            }
            let left = until.saturating_sub(monotonic());
            if left == 0 {
                return Err(WireError::Silent(within));
            }
            self.socket.read_within(Duration::from_nanos(left)).map_err(WireError::Io)?;
            match self.socket.read(&mut chunk) {
                Ok(0) => return Err(WireError::Closed),
                Ok(n) => self.frames.push(&chunk[..n]),
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted => {}
                    io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
                        return Err(WireError::Closed);
                    }
                    _ => return Err(WireError::Io(error)),
                },
            }
        }
    }

    fn word<T: DeserializeOwned>(&mut self, content: Vec<u8>) -> Result<T, WireError> {
        let content = match &mut self.seal {
            None => content,
            Some(seal) => seal.open(content).ok_or_else(|| WireError::Garbled("a broken seal".to_owned()))?,
        };
        // Only the place of a mistake is told, since words may hold secrets.
        serde_json::from_slice(&content)
            .map_err(|error| WireError::Garbled(format!("no word that is known, at byte {}", error.column())))
    }

    /// Ends the connection.
    pub(super) fn hang_up(&self) {
        self.socket.hang_up();
    }
}

impl Mouth {
    /// From now on everything that is said is sealed.
    pub(super) fn sealed(&mut self, seal: Seal) {
        self.seal = Some(seal);
    }

    /// Says a word.
    pub(super) fn say<T: Serialize>(&mut self, word: &T) -> Result<(), WireError> {
        let mut content = serde_json::to_vec(word).map_err(|error| WireError::Garbled(error.to_string()))?;
        if let Some(seal) = &mut self.seal {
            content = seal.close(content);
        }
        let long = |long: super::frame::TooLong| WireError::Garbled(format!("a frame of {} bytes", long.0));
        let bytes = frame(&content).map_err(long)?;
        self.socket.write_all(&bytes).map_err(|error| match error.kind() {
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => WireError::Closed,
            _ => WireError::Io(error),
        })
    }

    /// Ends the connection.
    pub(super) fn hang_up(&self) {
        self.socket.hang_up();
    }
}
