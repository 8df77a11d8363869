//! Replies over TCP and UDP: where one ends, and whether it is the one that was expected.

use super::ErrorClass;
use super::connection::Reading;
use super::http::{NotHttp, Progress, Search};
use super::spec::{Checked, Reply, Request};
use super::tally::Ending;

/// One reply at a time.
#[derive(Debug, Default)]
pub(super) struct Replies {
    seen: u64,
    differs: bool,
    end: Search,
    content: Search,
}

impl Replies {
    /// Whether a whole datagram is the reply.
    pub(super) fn fits(request: &Request, sent: &[u8], datagram: &[u8]) -> bool {
        let mut content = Search::default();
        if let Some(needle) = &request.needle {
            content.feed(needle, datagram);
        }
        let whole = match &request.reply {
            Reply::Echo => datagram == sent,
            Reply::Bytes(length) => datagram.len() as u64 == *length,
            Reply::Until(text) => datagram.ends_with(text.as_bytes()),
            Reply::First => true,
        };
        whole && request.needle.as_ref().is_none_or(|needle| content.found(needle))
    }
}

impl Reading for Replies {
    fn reset(&mut self) {
        *self = Self::default();
    }

    fn started(&self) -> bool {
        self.seen > 0
    }

    fn feed(
        &mut self,
        _: &Checked,
        request: &Request,
        sent: &[u8],
        input: &[u8],
    ) -> Result<Progress, NotHttp> {
        let length = match &request.reply {
            Reply::Echo => Some(sent.len() as u64),
            Reply::Bytes(length) => Some(*length),
            Reply::Until(_) | Reply::First => None,
        };
        let used = match (length, &request.end) {
            (Some(length), _) => {
                Some((length - self.seen) as usize).filter(|missing| *missing <= input.len())
            }
            (None, Some(end)) => self.end.end_of(end, input),
            (None, None) => Some(input.len()),
        };
        let part = &input[..used.unwrap_or(input.len())];
        if request.reply == Reply::Echo {
            let from = self.seen as usize;
            self.differs |= sent.get(from..from + part.len()) != Some(part);
        }
        if let Some(needle) = &request.needle {
            self.content.feed(needle, part);
        }
        self.seen += part.len() as u64;
        Ok(used.map_or(Progress::More, Progress::Complete))
    }

    fn end(&mut self) -> bool {
        false
    }

    fn reusable(&self) -> bool {
        true
    }

    fn judged(&self, request: &Request) -> Ending<'_> {
        let found = request.needle.as_ref().is_none_or(|needle| self.content.found(needle));
        let good = found && !self.differs;
        let failure = (!good).then_some(ErrorClass::Expectation);
        Ending { failure, status: None, pop: None, path: None, sent: true, late: false, taken_on: None }
    }
}
