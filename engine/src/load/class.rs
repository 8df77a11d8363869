//! How an arrival can end badly. Every arrival ends in exactly one way: a good answer or one of these.

use std::collections::BTreeMap;
use std::io;

use injectors::sys::host::Errno;

/// Why a request failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorClass {
    /// The connection was refused, or the network said that the address cannot be reached.
    Refused,
    /// No connection within the time allowed for connecting: no server was reached.
    ConnectTimeout,
    /// The connection ended before the answer was complete.
    Reset,
    /// No complete answer within the deadline, which counts from the intended time.
    Deadline,
    /// The TLS handshake failed, or did not end within the time allowed for connecting.
    Tls,
    /// An answer with an unexpected status code.
    Status,
    /// An answer with the right status but without the expected content.
    Expectation,
    /// Something that is not what was to be spoken.
    Protocol,
    /// The generator's own machine: descriptors, ports, buffers.
    Local,
    /// Its data cannot be sent: a line break in a header, or no row is left. Nothing was sent.
    Data,
    /// Every connection was busy, and the load was told not to let requests wait.
    Shed,
}

impl ErrorClass {
    /// Every class.
    pub const ALL: [Self; 11] = [
        Self::Refused,
        Self::ConnectTimeout,
        Self::Reset,
        Self::Deadline,
        Self::Tls,
        Self::Status,
        Self::Expectation,
        Self::Protocol,
        Self::Local,
        Self::Data,
        Self::Shed,
    ];

    /// As written in records.
    pub fn name(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::ConnectTimeout => "connect-timeout",
            Self::Reset => "reset",
            Self::Deadline => "deadline",
            Self::Tls => "tls",
            Self::Status => "status",
            Self::Expectation => "expectation",
            Self::Protocol => "protocol",
            Self::Local => "local",
            Self::Data => "data",
            Self::Shed => "shed",
        }
    }

    /// The class of this name.
    pub(super) fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|class| class.name() == name)
    }

    /// The class of a failed connection attempt.
    pub(super) fn of_connect(error: &io::Error) -> Self {
        match errno(error) {
            Some(Errno::TIMEDOUT) => Self::ConnectTimeout,
            Some(Errno::CONNREFUSED | Errno::HOSTUNREACH | Errno::NETUNREACH | Errno::HOSTDOWN) => {
                Self::Refused
            }
            Some(Errno::CONNRESET | Errno::CONNABORTED | Errno::PIPE) => Self::Reset,
            _ => Self::Local,
        }
    }

    /// The class of a failed read or write on an open connection.
    pub(super) fn of_stream(error: &io::Error) -> Self {
        if matches!(error.get_ref(), Some(inner) if inner.is::<rustls::Error>()) {
            return Self::Tls;
        }
        match errno(error) {
            Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => Self::Local,
            _ => Self::Reset,
        }
    }

    /// The class of a failed TLS handshake.
    pub(super) fn of_handshake(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionAborted => {
                Self::Reset
            }
            _ => Self::Tls,
        }
    }
}

fn errno(error: &io::Error) -> Option<Errno> {
    Errno::from_io_error(error)
}

/// How many requests failed, by class.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Errors([u64; ErrorClass::ALL.len()]);

impl Errors {
    /// Counts one.
    pub(crate) fn count(&mut self, class: ErrorClass) {
        self.0[class as usize] += 1;
    }

    /// Counts several of one class.
    pub(super) fn add(&mut self, class: ErrorClass, count: u64) {
        self.0[class as usize] += count;
    }

    /// Adds all of another.
    pub(super) fn merge(&mut self, other: &Self) {
        self.0.iter_mut().zip(other.0).for_each(|(mine, theirs)| *mine += theirs);
    }

    /// How many of one class.
    pub fn of(&self, class: ErrorClass) -> u64 {
        self.0[class as usize]
    }

    /// How many of all classes.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// The classes that occurred, by name.
    pub fn by_name(&self) -> BTreeMap<String, u64> {
        ErrorClass::ALL
            .iter()
            .filter(|c| self.of(**c) > 0)
            .map(|c| (c.name().to_owned(), self.of(*c)))
            .collect()
    }
}
