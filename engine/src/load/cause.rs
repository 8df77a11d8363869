//! Why a class of failures happened, in words: what TLS says of itself. Pure.

use std::io;

use rustls::{CertificateError, Error};

/// The longest cause, in characters.
pub(super) const CAUSE_MAX: usize = 160;

/// No end of a handshake in time.
pub(super) const SLOW: &str = "the handshake did not end within the time for connecting";

/// Why TLS failed; none if it is not TLS that did.
pub(super) fn of(error: &io::Error) -> Option<String> {
    let error = error.get_ref()?.downcast_ref::<Error>()?;
    let said = match error {
        Error::InvalidCertificate(wrong) => certificate(wrong),
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

fn certificate(wrong: &CertificateError) -> String {
    match wrong {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => "the certificate has expired",
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "the certificate is not valid yet"
        }
        CertificateError::UnknownIssuer => "unknown issuer: nobody who is trusted has signed the certificate",
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "the name does not match the certificate"
        }
        CertificateError::Revoked => "the certificate is revoked",
        other => return format!("the certificate is not accepted: {other}"),
    }
    .to_owned()
}

/// On one line, and not longer than [`CAUSE_MAX`].
pub(super) fn bounded(text: &str) -> String {
    let plain = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    plain.take(CAUSE_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_tls_says_is_told_in_words() {
        let said = |error: Error| of(&io::Error::other(error));
        let wrong = |wrong| said(Error::InvalidCertificate(wrong)).unwrap();
        assert_eq!(wrong(CertificateError::Expired), "the certificate has expired");
        assert!(wrong(CertificateError::UnknownIssuer).starts_with("unknown issuer"));
        assert!(wrong(CertificateError::NotValidForName).contains("name does not match"));
        let no_tls = Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType);
        assert_eq!(said(no_tls).unwrap(), "the server speaks no TLS");
        let long = said(Error::General("a\nb\u{1b}".repeat(200))).unwrap();
        assert!(long.chars().count() == CAUSE_MAX && !long.contains(char::is_control), "{long:?}");
        assert_eq!(of(&io::Error::from(io::ErrorKind::ConnectionReset)), None);
    }
}
