//! What a URL says about where a request goes and what is spoken there.

use hyper::Uri;

use super::spec::HttpVersion;
use super::wire::Protocol;

/// Scheme, host and port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct OriginName {
    pub(super) protocol: Protocol,
    /// HTTP/2 carries calls, not requests.
    pub(super) grpc: bool,
    pub(super) tls: bool,
    pub(super) host: String,
    pub(super) port: u16,
}

/// The schemes: protocol (none: whichever HTTP the load speaks), gRPC, TLS, and the port that goes without saying.
const SCHEMES: [(&str, Option<Protocol>, bool, bool, u16); 8] = [
    ("http", None, false, false, 80),
    ("https", None, false, true, 443),
    ("grpc", Some(Protocol::Http2), true, false, 80),
    ("grpcs", Some(Protocol::Http2), true, true, 443),
    ("tcp", Some(Protocol::Tcp), false, false, 0),
    ("tls", Some(Protocol::Tcp), false, true, 0),
    ("udp", Some(Protocol::Udp), false, false, 0),
    ("dns", Some(Protocol::Dns), false, false, 53),
];

/// The host that a URL names; what follows it may have slots.
///
/// # Errors
/// It names none.
pub fn host(url: &str) -> Result<String, String> {
    let start = url.find("://").map_or(0, |at| at + 3);
    let end = url[start..].find(['/', '?', '#']).map_or(url.len(), |at| start + at);
    let uri: Uri = url[..end].parse().map_err(|_| format!("`{url}` is no URL"))?;
    let host = uri.host().ok_or_else(|| format!("`{url}` is no URL: write it as http://HOST:PORT/PATH"))?;
    if host.is_empty() {
        return Err(format!("`{url}` names no host: write it as http://HOST:PORT/PATH"));
    }
    Ok(host.to_owned())
}

/// Reads a URL: where it leads, and the authority as it is written.
pub(super) fn parse(url: &str, http: HttpVersion) -> Result<(OriginName, String), &'static str> {
    let uri: Uri = url.parse().map_err(|_| "this is not a URL")?;
    let scheme = uri.scheme_str();
    let (_, protocol, grpc, tls, usual) = SCHEMES
        .into_iter()
        .find(|(name, ..)| Some(*name) == scheme)
        .ok_or("a URL must start with http, https, grpc, grpcs, tcp, tls, udp or dns, and ://")?;
    let authority = uri.authority().ok_or("the URL names no host")?;
    if authority.as_str().contains('@') {
        return Err("user names and passwords do not belong into a URL; use a header");
    }
    let host = authority.host();
    let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
    if host.is_empty() {
        return Err("the URL names no host");
    }
    let port = match (authority.port_u16(), authority.as_str().rsplit_once(':')) {
        (Some(0), _) => return Err("port 0 cannot be connected to"),
        (Some(port), _) => port,
        (None, Some((_, rest))) if !rest.ends_with(']') => {
            return Err("the port is not a number up to 65535");
        }
        (None, _) if usual == 0 => return Err("the URL names no port"),
        (None, _) => usual,
    };
    let spoken = match http {
        HttpVersion::One => Protocol::Http1,
        HttpVersion::Two => Protocol::Http2,
        HttpVersion::Three => Protocol::Http3,
    };
    let protocol = protocol.unwrap_or(spoken);
    if protocol == Protocol::Http3 {
        speakable(tls, cfg!(feature = "http3"))?;
    }
    let name = OriginName { protocol, grpc, tls, host: host.to_owned(), port };
    Ok((name, authority.as_str().to_owned()))
}

/// Whether HTTP/3 can be spoken: within TLS, by a squall that was `built` with it.
fn speakable(tls: bool, built: bool) -> Result<(), &'static str> {
    match (built, tls) {
        (false, _) => {
            Err("this squall was built without HTTP/3 (the feature http3): speak HTTP/2 or HTTP/1.1")
        }
        (true, false) => Err("HTTP/3 is spoken within TLS only: write https://, or speak HTTP/2 or HTTP/1.1"),
        (true, true) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn http_3_wants_tls_and_a_build_that_has_it() {
        assert_eq!(speakable(true, true), Ok(()));
        assert!(speakable(false, true).unwrap_err().contains("https://"));
        for tls in [true, false] {
            assert!(speakable(tls, false).unwrap_err().contains("built without HTTP/3"));
        }
        let parsed = |url: &str| parse(url, HttpVersion::Three).map(|(name, _)| name.protocol);
        assert!(parsed("http://a/").is_err());
        // What a scheme says itself stays so.
        assert_eq!(parsed("grpc://a/x.Y/Z"), Ok(Protocol::Http2));
        if cfg!(feature = "http3") {
            assert_eq!(parsed("https://a/"), Ok(Protocol::Http3));
        }
    }
}
