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
    String::from_utf8(checked.requests[0].made.head.clone()).unwrap()
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
        s.requests[0].body = Body::Bytes(b"abc".to_vec());
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
    assert_eq!(origin("http://[::1]:8080/").unwrap(), OriginName { port: 8080, ..plain("::1") });
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
    use crate::filling::Filling;
    let agent = concat!("squall/", env!("CARGO_PKG_VERSION"));
    let checked = spec(with_data).unwrap();
    let (recipe, feeds) = (&checked.requests[0].recipe, [feed(Order::Sequential)]);
    assert!(recipe.slotted() && checked.requests[0].made.head.is_empty());
    assert_eq!(checked.requests[0].words, "POST http://h:81/?u=…&n=…");
    let mut made = Made::default();
    made.head.extend_from_slice(b"of the last one");
    recipe.make(&mut Filling::new(&feeds, 1, 2), &mut made).unwrap();
    let expected = format!(
        "POST /?u=a%2F1&n=2 HTTP/1.1\r\nhost: h:81\r\nuser-agent: {agent}\r\nx-token: v t1\r\ncontent-length: 11\r\n\r\n{{\"t\": \"t1\"}}"
    );
    assert_eq!(String::from_utf8(made.head.clone()).unwrap(), expected);
    let room = made.head.capacity();
    for number in 0..100 {
        recipe.make(&mut Filling::new(&feeds, 1, 2 * number), &mut made).unwrap();
    }
    assert_eq!(made.head.capacity(), room, "nothing is allocated once there is room");
    let two = spec(|s| {
        with_data(s);
        s.http = HttpVersion::Two;
    });
    two.unwrap().requests[0].recipe.make(&mut Filling::new(&feeds, 1, 2), &mut made).unwrap();
    let fields = loona_fields(&made.head);
    let agent_field = format!("user-agent={agent}");
    let expected = [
        ":method=POST",
        ":scheme=http",
        ":path=/?u=a%2F1&n=2",
        ":authority=h:81",
        &agent_field,
        "x-token=v t1",
        "content-length=11",
    ];
    assert_eq!((fields, &*made.body), (expected.map(str::to_owned).to_vec(), &b"{\"t\": \"t1\"}"[..]));
    // The second row has a line break in what stands in a header.
    assert_eq!(recipe.unfit(Filling::new(&feeds, 1, 2)), None);
    let second = || Filling::new(&feeds, 1, 3);
    assert_eq!(recipe.unfit(second()), Some(crate::template::Unfit::Header));
    assert!(recipe.make(&mut second(), &mut made).is_err() && made.head.is_empty());
}

/// The fields of a header block.
fn loona_fields(block: &[u8]) -> Vec<String> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let fields = loona_hpack::Decoder::new().decode(block).unwrap();
    fields.iter().map(|(name, value)| format!("{}={}", text(name), text(value))).collect()
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
