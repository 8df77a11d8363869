//! Laws of scripts: what is refused, what an answer must hold, and which rows and numbers a request has.

use std::time::Duration;

use super::super::{Branch, Source, Think};
use super::*;
use crate::expect::{Expect, HeaderExpect, HeaderTest, JsonExpect};
use crate::feed::Format;
use crate::filling::Filling;
use crate::schedule::{Profile, Segment};
use crate::template::Unfit;

fn step(name: &str, url: &str) -> Step {
    Step {
        name: name.to_owned(),
        method: "GET".to_owned(),
        url: url.to_owned(),
        headers: Vec::new(),
        body: None,
        expect: Expect::default(),
        extract: Vec::new(),
        think: Think::NONE,
    }
}

fn item(step: Step) -> Item {
    Item::Step(Box::new(step))
}

fn journey(steps: Vec<Item>) -> Journey {
    let second = Duration::from_secs(1);
    let pace = Pace::Users { count: 1, ramp: Duration::ZERO, lasting: second, keep_rows: false };
    Journey { pace, start: Vec::new(), steps, stop: Vec::new(), cookies: true, retry: None }
}

fn script(steps: Vec<Step>) -> Result<Script, ScriptError> {
    Script::new(&journey(steps.into_iter().map(item).collect()), &[])
}

#[test]
fn names_are_known_from_the_step_after_the_one_that_finds_them() {
    let finds = Step {
        extract: vec![("token".to_owned(), Source::Json("/t".to_owned()))],
        ..step("login", "http://h/login")
    };
    let uses =
        Step { headers: vec![("x-t".to_owned(), "${token}".to_owned())], ..step("use", "http://h/${token}") };
    let found = script(vec![finds.clone(), uses.clone()]).unwrap();
    assert_eq!((found.names, found.asks.len()), (1, 2));
    assert_eq!(found.kinds(), ["login", "use", "journey", "retry"]);
    let early = script(vec![uses, finds]).unwrap_err().to_string();
    assert!(early.contains("step use") && early.contains("${token}"), "{early}");
}

#[test]
fn what_cannot_be_sent_is_told_beforehand() {
    let wrong = |steps: Vec<Step>, says: &str| {
        let why = script(steps).unwrap_err().to_string();
        assert!(why.contains(says), "{why}");
    };
    wrong(vec![], "1 to 64 steps");
    wrong(vec![step("a", "http://h/"), step("a", "http://h/")], "has this name");
    wrong(vec![step("journey", "http://h/")], "has this name");
    wrong(vec![step("a", "ftp://h/")], "http://");
    wrong(vec![step("a", "http://${counter}/")], "the same for every request");
    wrong(vec![Step { method: "CONNECT".to_owned(), ..step("a", "http://h/") }], "method");
    wrong(
        vec![Step { headers: vec![("a b".to_owned(), String::new())], ..step("a", "http://h/") }],
        "header",
    );
    wrong(
        vec![Step {
            extract: vec![("uuid".to_owned(), Source::Header("x".to_owned()))],
            ..step("a", "http://h/")
        }],
        "another meaning",
    );
    let regex = vec![("x".to_owned(), Source::Regex("(".to_owned()))];
    wrong(vec![Step { extract: regex, ..step("a", "http://h/") }], "step a: x: unclosed group");
    let pointer = vec![JsonExpect { pointer: "ok".to_owned(), equals: None }];
    let expect = Expect { json: pointer, ..Expect::default() };
    wrong(vec![Step { expect, ..step("a", "http://h/") }], "a JSON pointer begins with `/`");
    let empty = Item::Choose(vec![Branch { name: "b".to_owned(), weight: 1, steps: Vec::new() }]);
    assert_eq!(Script::new(&journey(vec![empty]), &[]).unwrap_err(), ScriptError::Choice);
}

fn users(order: Order) -> Arc<Feed> {
    let text = "id,pin\n1,a b\n2,c&d\n3,e\nf\n".replace("e\nf", "\"e\nf\"");
    Arc::new(Feed::parse("users", order, Format::Separated(b','), &text).unwrap())
}

fn sessions(count: u32, steps: Vec<Step>) -> Journey {
    let hold = Segment::Hold { rate: f64::from(count), lasting: Duration::from_secs(1) };
    let arrivals = Profile::new(vec![hold]).unwrap();
    let pace = Pace::Sessions { arrivals, poisson: false, most: 10 };
    Journey { pace, ..journey(steps.into_iter().map(item).collect()) }
}

#[test]
fn rows_that_cannot_suffice_are_told_beforehand() {
    let asks = || step("a", "http://h/${users.id}");
    let once = [users(Order::Unique)];
    assert_eq!(Script::new(&sessions(3, vec![asks()]), &once).unwrap().fields, [(0, [0].into())].into());
    let why = Script::new(&sessions(4, vec![asks()]), &once).unwrap_err().to_string();
    assert!(why.contains("feed users has 3 rows") && why.contains("4 sessions take one each"), "{why}");
    assert!(Script::new(&sessions(4, vec![asks()]), &[users(Order::Random)]).is_ok());
    assert!(Script::new(&sessions(4, vec![step("a", "http://h/")]), &once).is_ok(), "nobody uses it");
    let crowd = |count| {
        let pace =
            Pace::Users { count, ramp: Duration::ZERO, lasting: Duration::from_secs(1), keep_rows: false };
        Script::new(&Journey { pace, ..journey(vec![item(asks())]) }, &once)
    };
    assert!(crowd(4).unwrap_err().to_string().contains("4 users take one each"));
    let script = crowd(3).unwrap();
    assert_eq!([2, 3, 4].map(|row| script.exhausted(&once, row)), [false, true, true]);
    assert!(!script.exhausted(&[users(Order::Sequential)], 99));
    let twice = Script::new(&sessions(1, vec![asks()]), &[users(Order::Random), users(Order::Random)]);
    assert_eq!(twice.unwrap_err(), ScriptError::Feeds);
    let extract = vec![("users".to_owned(), Source::Header("x".to_owned()))];
    let both = Script::new(&sessions(1, vec![Step { extract, ..asks() }]), &once).unwrap_err();
    assert_eq!(both, ScriptError::Names("a".to_owned()));
}

#[test]
fn requests_of_one_walk_share_a_row_and_no_two_share_a_number() {
    let choice = |name: &str, more: bool| {
        let mut steps = vec![item(step(name, "http://h/"))];
        steps.extend(more.then(|| item(step("more", "http://h/"))));
        Branch { name: name.to_owned(), weight: 1, steps }
    };
    let steps = vec![Item::Choose(vec![choice("b", true), choice("c", false)]), item(step("d", "http://h/"))];
    let (start, stop) = (vec![item(step("a", "http://h/"))], vec![item(step("e", "http://h/"))]);
    let feeds = [users(Order::Random)];
    let script = Script::new(&Journey { start, stop, ..journey(steps) }, &feeds).unwrap();
    let numbers = |walk| {
        let steps = (0..3).map(move |at| (Part::Steps, at));
        let all = [(Part::Start, 0)].into_iter().chain(steps).chain([(Part::Stop, 0)]);
        all.map(|(part, at)| script.number(walk, part, at)).collect::<Vec<_>>()
    };
    assert_eq!(numbers(0), [0, 1, 2, 3, 4]);
    assert_eq!(numbers(2), [10, 11, 12, 13, 14]);
    let known =
        Known { feeds: &[("users".to_owned(), vec!["id".to_owned(), "pin".to_owned()])], extracted: &[] };
    let text =
        Template::parse("${users.id} ${users.pin} ${counter} ${uuid} ${random.1..9}", Place::Url, &known)
            .unwrap();
    let made = |row, number| {
        let mut out = Vec::new();
        text.render(&mut Filling::new(&feeds, 7, number).of(row, &[]), &mut out).unwrap();
        String::from_utf8(out).unwrap()
    };
    let rows: BTreeSet<String> =
        (0..40).map(|row| made(row, 5).split(' ').next().unwrap().to_owned()).collect();
    assert_eq!(rows.len(), 3, "all rows are drawn");
    let (one, other) = (made(1, 5), made(1, 6));
    assert_eq!(one.split(' ').take(2).collect::<Vec<_>>(), other.split(' ').take(2).collect::<Vec<_>>());
    assert_ne!(one.split(' ').nth(3), other.split(' ').nth(3), "another request, another uuid");
    assert_eq!(one, made(1, 5), "the same again");
    let header = Template::parse("${users.pin}", Place::Header, &known).unwrap();
    let once = [users(Order::Unique)];
    let put = |row| header.render(&mut Filling::new(&once, 7, 0).of(row, &[]), &mut Vec::new());
    assert_eq!((put(1), put(2), put(3)), (Ok(()), Err(Unfit::Header), Err(Unfit::Exhausted)));
}

#[test]
fn an_answer_is_looked_at_as_a_whole() {
    let expect = Expect {
        headers: vec![HeaderExpect {
            name: "X-Cache".to_owned(),
            test: HeaderTest::Equals("HIT".to_owned()),
        }],
        json: vec![JsonExpect { pointer: "/ok".to_owned(), equals: Some(true.into()) }],
        ..Expect::default()
    };
    let extract = vec![
        ("id".to_owned(), Source::Json("/id".to_owned())),
        ("sid".to_owned(), Source::Cookie("sid".to_owned())),
    ];
    let script = script(vec![Step { expect, extract, ..step("a", "http://h/") }]).unwrap();
    let look = |status, cache: &'static str, body: &str, whole, contains| {
        let mut headers = HeaderMap::new();
        headers.insert("x-cache", HeaderValue::from_static(cache));
        headers.insert("set-cookie", HeaderValue::from_static("sid=s; Path=/"));
        let seen = Seen { status, headers: &headers, body: body.as_bytes(), whole, contains };
        let mut learnt = Vec::new();
        let looked = script.asks[0].look(seen, |place, value| learnt.push((place, value)));
        (looked, learnt)
    };
    let good = r#"{"ok": true, "id": 7}"#;
    let all = vec![(0, Some("7".to_owned())), (1, Some("s".to_owned()))];
    assert!(script.asks[0].reads());
    assert_eq!(look(200, "HIT", good, true, true), (Ok(()), all));
    let nothing = |miss| (Err(miss), Vec::new());
    assert_eq!(look(500, "HIT", good, true, true), nothing(Miss::Status));
    assert_eq!(look(200, "MISS", good, true, true), nothing(Miss::Content));
    assert_eq!(look(200, "HIT", r#"{"ok": 1}"#, true, true), nothing(Miss::Content));
    assert_eq!(look(200, "HIT", good, false, true), nothing(Miss::Content), "it was cut off");
    assert_eq!(look(200, "HIT", good, true, false), nothing(Miss::Content));
    let (looked, learnt) = look(200, "HIT", r#"{"ok": true}"#, true, true);
    assert_eq!((looked, &learnt[0]), (Err(Miss::Content), &(0, None)), "what is not there is forgotten");
}
