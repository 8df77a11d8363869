//! What a response head means for its body and its connection (RFC 9112, section 6.3).

use std::mem::MaybeUninit;

use super::{HEAD_MAX, NotHttp, Rules};

/// The header that names the instances that served an answer, separated by commas.
pub(in crate::load) const PATH_HEADER: &str = "x-squall-path";
/// The most header fields in a head.
const FIELDS_MAX: usize = 128;

/// How the end of the body is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Body {
    Length(u64),
    Chunked,
    UntilClose,
}

/// A complete head.
#[derive(Debug)]
pub(super) struct Head<'a> {
    pub(super) length: usize,
    pub(super) status: u16,
    pub(super) keep_alive: bool,
    pub(super) body: Body,
    pub(super) pop: Option<&'a [u8]>,
    pub(super) path: Option<&'a [u8]>,
    /// The expectations that its fields meet, as bits.
    pub(super) met: u16,
}

/// Reads a head; none if it is not complete.
pub(super) fn parse<'a>(input: &'a [u8], rules: &Rules<'_>) -> Result<Option<Head<'a>>, NotHttp> {
    let mut fields = [const { MaybeUninit::uninit() }; FIELDS_MAX];
    let mut response = httparse::Response::new(&mut []);
    let parsed = httparse::ParserConfig::default().parse_response_with_uninit_headers(
        &mut response,
        input,
        &mut fields,
    );
    let length = match parsed.map_err(|_| NotHttp)? {
        httparse::Status::Complete(length) if length <= HEAD_MAX => length,
        httparse::Status::Complete(_) => return Err(NotHttp),
        httparse::Status::Partial => return Ok(None),
    };
    let status = response.code.filter(|code| (100..=999).contains(code) && *code != 101).ok_or(NotHttp)?;
    let mut facts = Facts::default();
    for field in response.headers.iter() {
        facts.read(field.name.as_bytes(), field.value)?;
        if field.name.as_bytes().eq_ignore_ascii_case(rules.pop_header) {
            facts.pop = Some(field.value.trim_ascii());
        }
        if field.name.as_bytes().eq_ignore_ascii_case(PATH_HEADER.as_bytes()) {
            facts.path = Some(field.value.trim_ascii());
        }
        if let Some(checks) = rules.checks {
            facts.met |= checks.met_by(field.name.as_bytes(), field.value);
        }
    }
    let modern = response.version == Some(1);
    let keep_alive = !facts.close && (modern || facts.keep_alive) && !(facts.coded && facts.length.is_some());
    Ok(Some(Head {
        length,
        status,
        keep_alive,
        body: facts.body(),
        pop: facts.pop,
        path: facts.path,
        met: facts.met,
    }))
}

#[derive(Debug, Default)]
struct Facts<'a> {
    length: Option<u64>,
    coded: bool,
    chunked: bool,
    close: bool,
    keep_alive: bool,
    pop: Option<&'a [u8]>,
    path: Option<&'a [u8]>,
    met: u16,
}

impl Facts<'_> {
    fn read(&mut self, name: &[u8], value: &[u8]) -> Result<(), NotHttp> {
        match name.len() {
            14 if name.eq_ignore_ascii_case(b"content-length") => {
                let length = number(value.trim_ascii()).ok_or(NotHttp)?;
                if self.length.is_some_and(|other| other != length) {
                    return Err(NotHttp);
                }
                self.length = Some(length);
            }
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                self.coded = true;
                let last = value.rsplit(|b| *b == b',').next().unwrap_or_default();
                self.chunked = last.trim_ascii().eq_ignore_ascii_case(b"chunked");
            }
            10 if name.eq_ignore_ascii_case(b"connection") => {
                for token in value.split(|b| *b == b',') {
                    self.close |= token.trim_ascii().eq_ignore_ascii_case(b"close");
                    self.keep_alive |= token.trim_ascii().eq_ignore_ascii_case(b"keep-alive");
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn body(&self) -> Body {
        match (self.coded, self.chunked, self.length) {
            (true, true, _) => Body::Chunked,
            (true, false, _) | (false, _, None) => Body::UntilClose,
            (false, _, Some(length)) => Body::Length(length),
        }
    }
}

fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    digits.iter().try_fold(0u64, |n, d| n.checked_mul(10)?.checked_add(u64::from(d - b'0')))
}
