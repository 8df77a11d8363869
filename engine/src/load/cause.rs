//! Why a class of failures happened, in words: what TLS says of itself. Pure.

use std::io;

use rustls::Error;

/// The longest cause, in characters.
pub(super) const CAUSE_MAX: usize = 160;

/// No end of a handshake in time.
pub(super) const SLOW: &str = "the handshake did not end within the time for connecting";

/// Why TLS failed; none if it is not TLS that did.
pub(super) fn of(error: &io::Error) -> Option<String> {
    let error = error.get_ref()?.downcast_ref::<Error>()?;
    let said = match error {
        Error::InvalidCertificate(wrong) => certificate(&wrong.to_string()),
        // What comes back is no record of TLS: `HTTP/1.1 400` or a banner.
        Error::InvalidMessage(_) => "the server speaks no TLS".to_owned(),
        Error::NoApplicationProtocol => {
            "the server speaks none of the protocols that were offered".to_owned()
        }
        Error::AlertReceived(alert) => format!("the server refused: {alert:?}"),
        other => other.to_string(),
    };
    Some(bounded(&said))
}

/// What over QUIC is only a text of rustls.
#[cfg(feature = "http3")]
pub(super) fn of_text(reason: &str) -> String {
    bounded(&reason.strip_prefix("invalid peer certificate: ").map_or_else(|| reason.to_owned(), certificate))
}

/// What rustls says of a certificate, and what that is in words.
const WRONG: [(&str, &str); 9] = [
    ("certificate expired", "the certificate has expired"),
    ("Expired", "the certificate has expired"),
    ("certificate not valid yet", "the certificate is not valid yet"),
    ("NotValidYet", "the certificate is not valid yet"),
    ("certificate not valid for name", "the name does not match the certificate"),
    ("NotValidForName", "the name does not match the certificate"),
    ("UnknownIssuer", "unknown issuer: nobody who is trusted has signed the certificate"),
    ("Revoked", "the certificate is revoked"),
    (
        "Other(OtherError(CaUsedAsEndEntity))",
        "the certificate is an authority's (CA:TRUE), no server's; make one by `openssl req -x509 -addext \
         basicConstraints=critical,CA:FALSE`",
    ),
];

fn certificate(wrong: &str) -> String {
    let known = WRONG.iter().find(|(said, _)| wrong.starts_with(said));
    let words = known.map_or_else(
        || format!("the certificate is not accepted: {wrong}"),
        |(_, words)| (*words).to_owned(),
    );
    // Which names would.
    match wrong.split_once("; certificate ") {
        Some((_, names)) => format!("{words}, which {names}"),
        None => words,
    }
}

/// On one line, and not longer than [`CAUSE_MAX`].
pub(super) fn bounded(text: &str) -> String {
    let plain = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    plain.take(CAUSE_MAX).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rustls::pki_types::{ServerName, UnixTime};
    use rustls::{CertificateError, OtherError};

    use super::*;

    /// As webpki's error of this name looks.
    #[derive(Debug, thiserror::Error)]
    #[error("")]
    struct CaUsedAsEndEntity;

    #[test]
    fn what_tls_says_is_told_in_words() {
        let said = |error: Error| of(&io::Error::other(error));
        let wrong = |wrong| said(Error::InvalidCertificate(wrong)).unwrap();
        assert_eq!(wrong(CertificateError::Expired), "the certificate has expired");
        assert!(wrong(CertificateError::UnknownIssuer).starts_with("unknown issuer"));
        let at = |seconds| UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        let expired = CertificateError::ExpiredContext { time: at(9), not_after: at(3) };
        assert_eq!(wrong(expired), "the certificate has expired");
        assert!(wrong(CertificateError::NotValidForName).contains("name does not match"));
        let expected = ServerName::try_from("a.example").unwrap();
        let presented = vec!["b.example".to_owned()];
        let other = CertificateError::NotValidForNameContext { expected, presented };
        assert!(wrong(other).ends_with("certificate, which is only valid for b.example"));
        let authority = OtherError(std::sync::Arc::new(CaUsedAsEndEntity));
        let authority = CertificateError::Other(authority);
        #[cfg(feature = "http3")]
        let text = Error::InvalidCertificate(authority.clone()).to_string();
        let said_of_it = wrong(authority);
        assert!(said_of_it.contains("CA:TRUE") && said_of_it.ends_with("CA:FALSE`"), "{said_of_it}");
        #[cfg(feature = "http3")]
        assert_eq!(of_text(&text), said_of_it, "over QUIC as over TCP");
        assert!(wrong(CertificateError::BadSignature).contains("not accepted: BadSignature"));
        let no_tls = Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType);
        assert_eq!(said(no_tls).unwrap(), "the server speaks no TLS");
        let long = said(Error::General("a\nb\u{1b}".repeat(200))).unwrap();
        assert!(long.chars().count() == CAUSE_MAX && !long.contains(char::is_control), "{long:?}");
        assert_eq!(of(&io::Error::from(io::ErrorKind::ConnectionReset)), None);
    }
}
