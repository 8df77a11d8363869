//! What this machine was short of when a request failed on it, and the way out.

use std::io;

use injectors::sys::host::Errno;

/// What was short.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lack {
    /// No local port is free for this destination (EADDRNOTAVAIL).
    Ports,
    /// This process has as many files open as it may (EMFILE).
    Files,
    /// The whole host has (ENFILE).
    HostFiles,
    /// The kernel has no memory for sockets (ENOBUFS, ENOMEM).
    Memory,
    /// Anything else.
    Other,
}

impl Lack {
    const ALL: [Self; 5] = [Self::Ports, Self::Files, Self::HostFiles, Self::Memory, Self::Other];

    fn of(error: &io::Error) -> Self {
        match Errno::from_io_error(error) {
            Some(Errno::ADDRNOTAVAIL | Errno::ADDRINUSE) => Self::Ports,
            Some(Errno::MFILE) => Self::Files,
            Some(Errno::NFILE) => Self::HostFiles,
            Some(Errno::NOBUFS | Errno::NOMEM) => Self::Memory,
            _ => Self::Other,
        }
    }

    /// What it is, and what helps.
    pub fn words(self) -> &'static str {
        match self {
            Self::Ports => {
                "no local port was free (EADDRNOTAVAIL): widen net.ipv4.ip_local_port_range, keep connections open, or \
                 allow fewer of them"
            }
            Self::Files => {
                "this process had too many files open (EMFILE): raise the limit (`ulimit -n`; `ulimit -Hn` shows how \
                 far), or allow fewer connections"
            }
            Self::HostFiles => "this host had too many files open (ENFILE): raise fs.file-max",
            Self::Memory => {
                "the kernel had no memory for sockets (ENOBUFS): raise net.ipv4.tcp_mem, or allow fewer connections"
            }
            Self::Other => "the kernel refused the socket for a reason of its own",
        }
    }
}

/// How often each was.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Lacks([u64; Lack::ALL.len()]);

impl Lacks {
    /// By kind of lack, in the order of their definition.
    pub(super) fn counts(&self) -> &[u64] {
        &self.0
    }

    /// From such counts; none if they are not as many.
    pub(super) fn of_counts(counts: &[u64]) -> Option<Self> {
        counts.try_into().ok().map(Self)
    }

    /// Counts a failed attempt.
    pub(super) fn count(&mut self, error: &io::Error) {
        self.0[Lack::of(error) as usize] += 1;
    }

    /// Adds all of another.
    pub(super) fn merge(&mut self, other: &Self) {
        self.0.iter_mut().zip(other.0).for_each(|(mine, theirs)| *mine += theirs);
    }

    /// The most frequent one.
    pub fn worst(&self) -> Option<Lack> {
        let counted = Lack::ALL.into_iter().zip(self.0).filter(|(_, count)| *count > 0);
        counted.max_by_key(|(_, count)| *count).map(|(lack, _)| lack)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_lack_names_its_way_out() {
        for (errno, word) in [
            (Errno::ADDRNOTAVAIL, "ip_local_port_range"),
            (Errno::MFILE, "ulimit -n"),
            (Errno::NFILE, "fs.file-max"),
            (Errno::NOBUFS, "tcp_mem"),
        ] {
            let mut lacks = Lacks::default();
            lacks.count(&io::Error::from(errno));
            assert!(lacks.worst().unwrap().words().contains(word), "{errno:?}");
        }
        assert_eq!(Lacks::default().worst(), None);
    }

    #[test]
    fn the_most_frequent_one_is_told() {
        let mut lacks = Lacks::default();
        lacks.count(&io::Error::from(Errno::MFILE));
        let mut others = Lacks::default();
        (0..2).for_each(|_| others.count(&io::Error::from(Errno::ADDRNOTAVAIL)));
        lacks.merge(&others);
        assert_eq!(lacks.worst(), Some(Lack::Ports));
    }
}
