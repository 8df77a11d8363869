//! Laws of templates: what they put in, how it is escaped, and that no text makes them panic.

use proptest::prelude::*;

use super::*;

/// One row, one extracted name, and numbers that can be told apart.
struct One<'a> {
    row: &'a [&'a str],
    extracted: Option<&'a str>,
    drawn: u64,
}

impl Values for One<'_> {
    fn field(&self, _feed: usize, column: usize) -> Option<&str> {
        self.row.get(column).copied()
    }

    fn counter(&self) -> u64 {
        42
    }

    fn uuid(&self) -> u128 {
        u128::MAX
    }

    fn random(&mut self) -> u64 {
        self.drawn = self.drawn.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(1);
        self.drawn
    }

    fn extracted(&self, _index: usize) -> Option<&str> {
        self.extracted
    }
}

fn feeds() -> Vec<(String, Vec<String>)> {
    vec![("users".to_owned(), vec!["id".to_owned(), "full name".to_owned()])]
}

fn parse(text: &str, place: Place) -> Result<Template, VarError> {
    let (feeds, extracted) = (feeds(), ["token".to_owned()]);
    Template::parse(text, place, &Known { feeds: &feeds, extracted: &extracted })
}

fn put_in(text: &str, place: Place, row: &[&str]) -> Result<String, Unfit> {
    let mut out = b"before ".to_vec();
    let rendered =
        parse(text, place).unwrap().render(&mut One { row, extracted: Some("t/1"), drawn: 0 }, &mut out);
    let text = String::from_utf8(out).unwrap();
    let text = text.strip_prefix("before ").unwrap().to_owned();
    if rendered.is_err() {
        assert_eq!(text, "", "what was begun is taken back");
    }
    rendered.map(|()| text)
}

#[test]
fn slots_are_filled_and_escaped_for_their_place() {
    let row = ["a b/ü", "say \"hi\"\n\u{1}\\"];
    let url = put_in("/u/${users.id}?n=${users.full name}&c=${counter}", Place::Url, &row).unwrap();
    assert_eq!(url, "/u/a%20b%2F%C3%BC?n=say%20%22hi%22%0A%01%5C&c=42");
    let json = put_in(r#"{"n": "${users.full name}", "c": ${counter}}"#, Place::Json, &row).unwrap();
    let read: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(read, serde_json::json!({"n": row[1], "c": 42}));
    assert_eq!(put_in("Bearer ${token}", Place::Header, &row).unwrap(), "Bearer t/1");
    assert_eq!(put_in("${users.full name}", Place::Plain, &row).unwrap(), row[1]);
    assert_eq!(put_in("a=${users.id}", Place::Form, &row).unwrap(), "a=a%20b%2F%C3%BC");
    let uuid = put_in("${uuid}", Place::Url, &row).unwrap();
    assert_eq!(uuid, "ffffffff-ffff-4fff-bfff-ffffffffffff");
    assert_eq!(put_in("$${users.id} $$ $ {}", Place::Plain, &row).unwrap(), "${users.id} $$ $ {}");
}

#[test]
fn what_cannot_be_sent_is_refused_and_nothing_of_it_is_left() {
    for value in ["a\r\nX-Evil: 1", "a\nb", "\0", "\u{7f}"] {
        assert_eq!(put_in("x ${users.id}", Place::Header, &[value]), Err(Unfit::Header), "{value:?}");
    }
    assert_eq!(put_in("x ${users.id}", Place::Header, &["a\tb ü"]).unwrap(), "x a\tb ü");
    assert_eq!(put_in("x ${users.full name}", Place::Url, &["a"]), Err(Unfit::Exhausted));
    let mut out = Vec::new();
    let missing = parse("x ${token}", Place::Url).unwrap();
    let nothing = &mut One { row: &[], extracted: None, drawn: 0 };
    assert_eq!(missing.render(nothing, &mut out), Err(Unfit::Missing));
}

#[test]
fn names_that_nobody_knows_are_mistakes_with_a_way_out() {
    let help = |text| parse(text, Place::Url).unwrap_err().help;
    assert!(help("/${user.id}").contains("did you mean `${users.id}`?"));
    assert!(help("/${users.nothing at all}").contains("known here: ${token}, ${users.id}"));
    assert!(help("/${countr}").contains("${counter}"));
    assert!(help("/${counter:-1}").contains("no default"));
    for wrong in ["/${random.6..1}", "/${random.a..b}", "/${random}", "/${random.+1..2}"] {
        assert!(help(wrong).contains("random.1..100"), "{wrong}");
    }
    assert!(help("/${counter").contains("close it"));
}

#[test]
fn random_numbers_reach_both_ends_and_no_further() {
    let template = parse("${random.3..5}", Place::Plain).unwrap();
    let mut values = One { row: &[], extracted: None, drawn: 7 };
    let mut seen = [0u32; 3];
    for _ in 0..3000 {
        let mut out = Vec::new();
        template.render(&mut values, &mut out).unwrap();
        seen[usize::from(out[0] - b'3')] += 1;
    }
    assert!(seen.iter().all(|count| (850..1150).contains(count)), "{seen:?}");
    let whole = put_in("${random.0..18446744073709551615}", Place::Plain, &[]).unwrap();
    assert!(whole.parse::<u64>().is_ok());
}

#[test]
fn a_body_is_json_if_its_type_says_so_or_its_text_looks_like_it() {
    let of = Place::of_body;
    assert_eq!(of(None, " {\"a\": 1}"), Place::Json);
    assert_eq!(of(None, "a=1"), Place::Plain);
    assert_eq!(of(Some("text/plain"), "{}"), Place::Plain);
    assert_eq!(of(Some("Application/JSON; charset=utf-8"), "x"), Place::Json);
    assert_eq!(of(Some("application/problem+json"), "x"), Place::Json);
    assert_eq!(of(Some("application/x-www-form-urlencoded"), "x"), Place::Form);
}

#[test]
fn templates_are_joined_and_keep_the_places_of_their_slots() {
    let mut head = Template::of_bytes(b"GET ");
    head.append(&parse("/${users.id}", Place::Url).unwrap());
    head.push_text(b" HTTP/1.1\r\nx: ");
    head.append(&parse("${users.id}", Place::Header).unwrap());
    assert_eq!(head.fixed(), None);
    assert_eq!(head.slots().count(), 2);
    assert_eq!(head.sample(), b"GET /0 HTTP/1.1\r\nx: 0");
    assert_eq!(head.to_string(), "GET /… HTTP/1.1\r\nx: …");
    let mut out = Vec::new();
    head.render(&mut One { row: &["a b"], extracted: None, drawn: 0 }, &mut out).unwrap();
    assert_eq!(out, b"GET /a%20b HTTP/1.1\r\nx: a b");
}

/// What percent-encoding stands for.
fn decoded(text: &str) -> String {
    let (mut bytes, mut rest) = (Vec::new(), text.as_bytes());
    while let [first, after @ ..] = rest {
        if *first == b'%' {
            bytes.push(u8::from_str_radix(std::str::from_utf8(&after[..2]).unwrap(), 16).unwrap());
            rest = &after[2..];
        } else {
            bytes.push(*first);
            rest = after;
        }
    }
    String::from_utf8(bytes).unwrap()
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "[${}.a-z:0-9]{0,30}") {
        if let Ok(template) = parse(&text, Place::Json) {
            let mut out = Vec::new();
            let _ = template.render(&mut One { row: &["1", "2"], extracted: None, drawn: 1 }, &mut out);
        }
    }

    #[test]
    fn a_text_without_slots_stays_as_it_is(text in "[^$]{0,40}") {
        let template = parse(&text, Place::Json).unwrap();
        prop_assert_eq!(template.fixed(), Some(text.as_bytes()));
    }

    #[test]
    fn any_value_comes_back_from_a_url_and_from_json(value in any::<String>()) {
        let url = put_in("/a/${users.id}/b", Place::Url, &[&value]).unwrap();
        prop_assert!(url.parse::<hyper::Uri>().is_ok());
        prop_assert_eq!(decoded(&url), format!("/a/{value}/b"));
        let json = put_in("{\"v\": \"${users.id}\"}", Place::Json, &[&value]).unwrap();
        let read: serde_json::Value = serde_json::from_str(&json).unwrap();
        prop_assert_eq!(read["v"].as_str(), Some(value.as_str()));
    }

    #[test]
    fn no_value_adds_a_line_to_a_header(value in any::<String>()) {
        match put_in("${users.id}", Place::Header, &[&value]) {
            Ok(text) => prop_assert!(hyper::header::HeaderValue::from_bytes(text.as_bytes()).is_ok()),
            Err(unfit) => prop_assert!(unfit == Unfit::Header && value.chars().any(|c| c.is_ascii_control())),
        }
    }
}
