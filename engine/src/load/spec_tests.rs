//! What may be sent and what may not.

use super::*;
use crate::load::wire::Protocol;
use crate::schedule::Segment;

fn spec(change: impl FnOnce(&mut LoadSpec)) -> Result<Checked, SpecError> {
    let profile = Profile::new(vec![Segment::Hold { rate: 1.0, lasting: Duration::from_secs(1) }]).unwrap();
    let mut spec = LoadSpec::new("x", vec![RequestSpec::get("http://h/")], profile);
    change(&mut spec);
    check(&spec)
}

fn url(url: &str) -> Result<Checked, SpecError> {
    spec(|s| s.requests[0].url = url.to_owned())
}

fn text(checked: &Checked) -> String {
    String::from_utf8(checked.requests[0].message.head.clone()).unwrap()
}

/// HTTP/1.1 without TLS.
fn plain(host: &str) -> OriginName {
    OriginName { protocol: Protocol::Http1, grpc: false, tls: false, host: host.into(), port: 80 }
}

#[test]
fn a_get_is_written_once_and_for_all() {
    let agent = concat!("squall/", env!("CARGO_PKG_VERSION"));
    let checked = url("http://h:81/a/b?c=d#e").unwrap();
    assert_eq!(text(&checked), format!("GET /a/b?c=d HTTP/1.1\r\nhost: h:81\r\nuser-agent: {agent}\r\n\r\n"));
    assert_eq!(checked.origins, [OriginName { port: 81, ..plain("h") }]);
    let closing = spec(|s| s.reuse = false).unwrap();
    assert!(text(&closing).ends_with("\r\nconnection: close\r\n\r\n"));
    let post = spec(|s| {
        s.requests[0].method = "POST".into();
        s.requests[0].body = b"abc".to_vec();
        s.requests[0].headers = vec![("Host".into(), "other".into())];
    });
    assert_eq!(
        text(&post.unwrap()),
        format!("POST / HTTP/1.1\r\nhost: other\r\nuser-agent: {agent}\r\ncontent-length: 3\r\n\r\nabc")
    );
}

#[test]
fn urls_name_their_origin() {
    let origin = |text: &str| url(text).map(|c| c.origins[0].clone());
    assert_eq!(origin("https://h").unwrap(), OriginName { tls: true, port: 443, ..plain("h") });
    assert_eq!(
        origin("http://[::1]:8080/").unwrap(),
        OriginName { port: 8080, ..plain("::1") }
    );
    assert_eq!(origin("http://[::1]/").unwrap().port, 80);
    for wrong in [
        "",
        "h",
        "/path",
        "ftp://h/",
        "http://",
        "http://u:p@h/",
        "http://u@h/",
        "http://h:0/",
        "http://h:99999/",
        "http://h:/x",
        "http://h/a b",
        "http://h/\r\nX: y",
        "http://h/\0",
    ] {
        assert!(
            matches!(url(wrong), Err(SpecError::Url(..))),
            "{wrong:?}: {:?}",
            url(wrong).map(|c| c.origins)
        );
    }
}

#[test]
fn requests_to_several_origins_know_theirs() {
    let checked = spec(|s| {
        s.requests = ["http://b/", "http://a/", "http://b/2"].map(RequestSpec::get).to_vec();
    });
    let checked = checked.unwrap();
    assert_eq!(checked.requests.iter().map(|r| r.origin).collect::<Vec<_>>(), [0, 1, 0]);
    assert_eq!(checked.origins[0].host, "b");
}

#[test]
fn headers_cannot_smuggle_lines() {
    let header = |name: &str, value: &str| {
        spec(|s| s.requests[0].headers = vec![(name.to_owned(), value.to_owned())]).map(|_| ()).unwrap_err()
    };
    assert_eq!(header("a", "b\r\nc: d"), SpecError::HeaderValue("a".into()));
    assert_eq!(header("a", "b\nc"), SpecError::HeaderValue("a".into()));
    assert_eq!(header("a", "ä"), SpecError::HeaderValue("a".into()));
    assert_eq!(header("a\r\n", "b"), SpecError::HeaderName("a\r\n".into()));
    assert_eq!(header("Content-Length", "1"), SpecError::HeaderReserved("content-length".into()));
    assert_eq!(header("transfer-encoding", "chunked"), SpecError::HeaderReserved("transfer-encoding".into()));
    let method = spec(|s| s.requests[0].method = "GET /x HTTP/1.1\r\n".into()).unwrap_err();
    assert!(matches!(method, SpecError::Method(..)));
    assert!(spec(|s| s.pop_header = "a b".into()).is_err());
}

#[test]
fn limits_are_refused_when_exceeded() {
    assert_eq!(spec(|s| s.requests.clear()).unwrap_err(), SpecError::Requests);
    assert_eq!(spec(|s| s.max_connections = 0).unwrap_err(), SpecError::Connections);
    assert_eq!(spec(|s| s.deadline = Duration::ZERO).unwrap_err(), SpecError::Deadline);
    assert_eq!(spec(|s| s.connect_timeout = Duration::MAX).unwrap_err(), SpecError::Deadline);
    assert!(matches!(spec(|s| s.requests[0].weight = 0).unwrap_err(), SpecError::Weight(_)));
    assert!(matches!(spec(|s| s.requests[0].method = "CONNECT".into()).unwrap_err(), SpecError::Method(..)));
    assert!(matches!(spec(|s| s.requests[0].expect.statuses.clear()).unwrap_err(), SpecError::Statuses(_)));
    let twins = spec(|s| s.requests.push(s.requests[0].clone()));
    assert!(matches!(twins.unwrap_err(), SpecError::Duplicate(_)));
}

#[test]
fn words_leave_out_what_may_be_secret() {
    let checked = url("https://h/p?token=abc&flag&x=").unwrap();
    assert_eq!(checked.requests[0].words, "GET https://h/p?token=…&…&x=…");
}
