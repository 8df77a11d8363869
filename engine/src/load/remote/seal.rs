//! Who is at the other end, and that nobody else has a word in it: the one door to ring.
//!
//! Both sides know a token and prove it by an HMAC-SHA256 over two random numbers, one from each; the token itself is
//! never sent. What follows is sealed with ChaCha20-Poly1305 under keys derived from token and numbers, one for each
//! direction, counted frame by frame: a plan may hold secret headers. There is no forward secrecy, and whoever records the
//! handshake can try tokens at home: so a token must be long and random.

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};

/// The shortest token, in bytes.
const TOKEN_MIN: usize = 16;
/// The longest.
pub const TOKEN_MAX: usize = 1024;
/// Bytes of a random number.
pub(super) const NONCE: usize = 32;

/// What coordinator and workers share.
#[derive(Clone, Default)]
pub struct Token(Vec<u8>);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token")
    }
}

impl Token {
    /// The token of this text, without the blanks around it.
    ///
    /// # Errors
    /// It is too short to be safe, or too long.
    pub fn new(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if (TOKEN_MIN..=TOKEN_MAX).contains(&text.len()) {
            Ok(Self(text.as_bytes().to_vec()))
        } else {
            Err(format!(
                "a token has {TOKEN_MIN} to {TOKEN_MAX} bytes, such as those of `head -c 32 /dev/urandom | base64`"
            ))
        }
    }

    /// Whether there is none: good enough for one machine.
    pub fn is_none(&self) -> bool {
        self.0.is_empty()
    }
}

/// A random number.
pub(super) fn nonce() -> [u8; NONCE] {
    let mut bytes = [0; NONCE];
    SystemRandom::new().fill(&mut bytes).expect("the kernel gives random numbers");
    bytes
}

/// Who says something.
#[derive(Debug, Clone, Copy)]
pub(super) enum Role {
    Coordinator,
    Worker,
}

impl Role {
    fn word(self, of: &str) -> String {
        match self {
            Self::Coordinator => format!("squall coordinator {of}"),
            Self::Worker => format!("squall worker {of}"),
        }
    }
}

/// What both sides have said to each other before the first secret.
#[derive(Debug, Clone, Copy)]
pub(super) struct Meeting {
    pub(super) coordinator: [u8; NONCE],
    pub(super) worker: [u8; NONCE],
}

impl Meeting {
    fn said(&self, word: &str) -> Vec<u8> {
        [word.as_bytes(), &self.coordinator, &self.worker].concat()
    }

    /// What only somebody with the token can say, and only here and now.
    pub(super) fn proof(&self, token: &Token, role: Role) -> Vec<u8> {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &token.0);
        hmac::sign(&key, &self.said(&role.word("proof"))).as_ref().to_vec()
    }

    /// Whether somebody in this role has said that; takes as long whatever it is.
    pub(super) fn proven(&self, token: &Token, role: Role, proof: &[u8]) -> bool {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &token.0);
        hmac::verify(&key, &self.said(&role.word("proof")), proof).is_ok()
    }

    /// Seals, or opens, what this role says from now on.
    pub(super) fn seal(&self, token: &Token, role: Role) -> Seal {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &token.0);
        let own = hmac::sign(&key, &self.said(&role.word("key")));
        let key = UnboundKey::new(&CHACHA20_POLY1305, own.as_ref()).expect("32 bytes are a key");
        Seal { key: LessSafeKey::new(key), count: 0 }
    }
}

/// One direction of a connection.
pub(super) struct Seal {
    key: LessSafeKey,
    count: u64,
}

impl Seal {
    /// Each number once: the key is of this connection and direction only.
    fn number(&mut self) -> Nonce {
        let mut bytes = [0; 12];
        bytes[4..].copy_from_slice(&self.count.to_be_bytes());
        self.count += 1;
        Nonce::assume_unique_for_key(bytes)
    }

    /// Makes a content unreadable and unchangeable.
    pub(super) fn close(&mut self, mut content: Vec<u8>) -> Vec<u8> {
        let number = self.number();
        let sealed = self.key.seal_in_place_append_tag(number, Aad::empty(), &mut content);
        sealed.expect("frames are shorter than what one seal can hold");
        content
    }

    /// The content again; none if it is not what the other side has sent next.
    pub(super) fn open(&mut self, mut sealed: Vec<u8>) -> Option<Vec<u8>> {
        let number = self.number();
        let length = self.key.open_in_place(number, Aad::empty(), &mut sealed).ok()?.len();
        sealed.truncate(length);
        Some(sealed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(text: &str) -> Token {
        Token::new(text).unwrap()
    }

    #[test]
    fn a_proof_is_of_one_token_one_role_and_one_meeting() {
        let meeting = Meeting { coordinator: nonce(), worker: nonce() };
        let (right, wrong) = (token("0123456789abcdef"), token("0123456789abcdeF"));
        let proof = meeting.proof(&right, Role::Worker);
        assert!(meeting.proven(&right, Role::Worker, &proof));
        assert!(!meeting.proven(&wrong, Role::Worker, &proof));
        assert!(
            !meeting.proven(&right, Role::Coordinator, &proof),
            "nobody can be answered with his own words"
        );
        let later = Meeting { coordinator: nonce(), ..meeting };
        assert!(!later.proven(&right, Role::Worker, &proof), "what was said once is worth nothing later");
    }

    #[test]
    fn what_is_sealed_opens_once_in_order_and_unchanged() {
        let meeting = Meeting { coordinator: nonce(), worker: nonce() };
        let secret = token("0123456789abcdef");
        let (mut here, mut there) =
            (meeting.seal(&secret, Role::Worker), meeting.seal(&secret, Role::Worker));
        let (first, second) = (here.close(b"one".to_vec()), here.close(b"two".to_vec()));
        assert!(!first.windows(3).any(|part| part == b"one"));
        assert_eq!(there.open(first.clone()).unwrap(), b"one");
        assert_eq!(there.open(first), None, "it was heard already");
        let mut other = meeting.seal(&secret, Role::Worker);
        assert_eq!(other.open(second.clone()), None, "one is missing before it");
        let mut changed = second;
        changed[0] ^= 1;
        assert_eq!(other.open(changed), None);
    }

    #[test]
    fn tokens_that_can_be_guessed_are_refused() {
        assert!(Token::new("short").is_err());
        assert!(Token::new(&"x".repeat(TOKEN_MAX + 1)).is_err());
        assert_eq!(format!("{:?}", token("0123456789abcdef")), "Token");
    }
}
