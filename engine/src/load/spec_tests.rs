//! What may be sent and what may not.

use super::*;
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
    String::from_utf8(checked.requests[0].bytes.clone()).unwrap()
}

#[test]
fn a_get_is_written_once_and_for_all() {
    let agent = concat!("squall/", env!("CARGO_PKG_VERSION"));
    let checked = url("http://h:81/a/b?c=d#e").unwrap();
    assert_eq!(text(&checked), format!("GET /a/b?c=d HTTP/1.1\r\nhost: h:81\r\nuser-agent: {agent}\r\n\r\n"));
    assert_eq!(checked.origins, [OriginName { tls: false, host: "h".into(), port: 81 }]);
    let closing = spec(|s| s.reuse = false).unwrap();
    assert!(text(&closing).ends_with("\r\nconnection: close\r\n\r\n"));
    let post = spec(|s| {
        s.requests[0].method = "POST".into();
        s.requests[0].body = Body::Bytes(b"abc".to_vec());
        s.requests[0].headers = vec![("Host".into(), "other".into())];
    });
    assert_eq!(
        text(&post.unwrap()),
        format!("POST / HTTP/1.1\r\nuser-agent: {agent}\r\nhost: other\r\ncontent-length: 3\r\n\r\nabc")
    );
}

#[test]
fn urls_name_their_origin() {
    let origin = |text: &str| url(text).map(|c| c.origins[0].clone());
    assert_eq!(origin("https://h").unwrap(), OriginName { tls: true, host: "h".into(), port: 443 });
    assert_eq!(
        origin("http://[::1]:8080/").unwrap(),
        OriginName { tls: false, host: "::1".into(), port: 8080 }
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

fn feed(order: Order) -> Arc<Feed> {
    let csv = crate::feed::Format::Separated(b',');
    Arc::new(Feed::parse("users", order, csv, "id,token\na/1,t1\n2,\"t\n2\"\n").unwrap())
}

/// A request with data in each of its places.
fn with_data(spec: &mut LoadSpec) {
    let request = &mut spec.requests[0];
    request.method = "POST".into();
    request.url = "http://h:81?u=${users.id}&n=${counter}#part".into();
    request.headers = vec![("x-token".into(), "v ${users.token}".into())];
    request.body = Body::Text("{\"t\": \"${users.token}\"}".into());
    spec.feeds = vec![feed(Order::Sequential)];
}

#[test]
fn a_request_with_data_is_made_anew_each_time_and_the_same_for_one_number() {
    use super::super::recipe::{Arrival, Parts};
    let agent = concat!("squall/", env!("CARGO_PKG_VERSION"));
    let checked = spec(with_data).unwrap();
    let (recipe, feeds) = (&checked.requests[0].recipe, [feed(Order::Sequential)]);
    assert!(recipe.slotted() && checked.requests[0].bytes.is_empty());
    assert_eq!(checked.requests[0].words, "POST http://h:81/?u=…&n=…");
    let mut made = b"of the last one".to_vec();
    recipe.http1(&mut Arrival::new(&feeds, 1, 2), &mut made).unwrap();
    let expected = format!(
        "POST /?u=a%2F1&n=2 HTTP/1.1\r\nhost: h:81\r\nuser-agent: {agent}\r\nx-token: v t1\r\ncontent-length: 11\r\n\r\n{{\"t\": \"t1\"}}"
    );
    assert_eq!(String::from_utf8(made.clone()).unwrap(), expected);
    let room = made.capacity();
    for number in 0..100 {
        recipe.http1(&mut Arrival::new(&feeds, 1, 2 * number), &mut made).unwrap();
    }
    assert_eq!(made.capacity(), room, "nothing is allocated once there is room");
    let mut parts = Parts::default();
    recipe.parts(&mut Arrival::new(&feeds, 1, 2), &mut parts).unwrap();
    assert_eq!(parts.target, b"/?u=a%2F1&n=2");
    assert_eq!(parts.headers, [b"h:81".to_vec(), agent.into(), b"v t1".to_vec()]);
    assert_eq!(parts.body, b"{\"t\": \"t1\"}");
    let names: Vec<_> = recipe.header_names().map(|name| name.as_str().to_owned()).collect();
    assert_eq!(names, ["host", "user-agent", "x-token"]);
    // The second row has a line break in what stands in a header.
    assert_eq!(recipe.unfit(&Arrival::new(&feeds, 1, 2)), None);
    let second = &mut Arrival::new(&feeds, 1, 3);
    assert_eq!(recipe.unfit(second), Some(crate::template::Unfit::Header));
    assert!(recipe.http1(second, &mut made).is_err() && made.is_empty());
}

#[test]
fn data_that_cannot_be_filled_in_is_refused_beforehand() {
    let says = |change: fn(&mut LoadSpec)| {
        let wrong = spec(|s| {
            with_data(s);
            change(s);
        });
        wrong.unwrap_err().to_string()
    };
    assert!(says(|s| s.requests[0].url = "http://${users.id}/".into()).contains("the same for all requests"));
    let unknown = says(|s| s.requests[0].url = "http://h/${user.id}".into());
    assert!(
        unknown.contains("url: `${user.id}` is not known here (did you mean `${users.id}`?)"),
        "{unknown}"
    );
    assert!(says(|s| s.feeds.clear()).contains("not known here"));
    assert!(says(|s| s.feeds.push(feed(Order::Random))).contains("a name of its own"));
    let few = says(|s| {
        s.feeds = vec![feed(Order::Unique)];
        s.profile = Profile::new(vec![Segment::Hold { rate: 3.0, lasting: Duration::from_secs(1) }]).unwrap();
    });
    assert!(few.contains("feed users has 2 rows") && few.contains("3 requests"), "{few}");
    let unused = spec(|s| {
        s.feeds = vec![feed(Order::Unique)];
        s.profile = Profile::new(vec![Segment::Hold { rate: 3.0, lasting: Duration::from_secs(1) }]).unwrap();
    });
    assert!(unused.is_ok(), "a feed that no request uses does not run out");
    let header = says(|s| s.requests[0].headers[0].1 = "a\r\nb: ${uuid}".into());
    assert!(header.contains("a character that a header must not have"), "{header}");
}
