//! gRPC with a server by grpcio, whose messages squall knows from a descriptor set of protoc.

use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::json;

use crate::protocols::{Program, count, sent};
use crate::support::server::{free_port, program};
use crate::support::{Home, quick, skipped, turns, until};

const PROTO: &str = r#"syntax = "proto3";
package pets;
message Pet { string name = 1; int32 age = 2; repeated string tags = 3; }
message Found { Pet pet = 1; int64 calls = 2; bool old = 3; }
service Pets { rpc Find(Pet) returns (Found); rpc Watch(Pet) returns (stream Found); }
"#;

/// Answers with the pet that was asked for; who is older than 100 is not found (5).
const SERVER: &str = r#"
import sys, grpc, itertools
from concurrent import futures
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
pool = descriptor_pool.DescriptorPool()
for file in descriptor_pb2.FileDescriptorSet.FromString(open(sys.argv[1], "rb").read()).file:
    pool.Add(file)
kind = lambda name: message_factory.MessageFactory(pool).GetPrototype(pool.FindMessageTypeByName(name))
Pet, Found = kind("pets.Pet"), kind("pets.Found")
calls = itertools.count(1)
def find(pet, context):
    if pet.age > 100:
        context.abort(grpc.StatusCode.NOT_FOUND, "too old")
    return Found(pet=pet, calls=next(calls), old=pet.age > 50)
method = grpc.unary_unary_rpc_method_handler(find, Pet.FromString, Found.SerializeToString)
server = grpc.server(futures.ThreadPoolExecutor(4))
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("pets.Pets", {"Find": method}),))
server.add_insecure_port("127.0.0.1:" + sys.argv[2])
server.start()
server.wait_for_termination(300)
"#;

/// Where the server listens, and the descriptor set.
struct Pets {
    _program: Program,
    port: u16,
    protoset: String,
}

impl Pets {
    fn new(home: &Home) -> Option<Self> {
        let protoc = program("protoc")?;
        // Debian's own, whatever else there is.
        let python = Path::new("/usr/bin/python3");
        if !Command::new(python).args(["-c", "import grpc"]).output().is_ok_and(|done| done.status.success())
        {
            skipped("grpcio is not installed: apt-get install python3-grpcio");
            return None;
        }
        let (proto, server) = (home.file("pets.proto", PROTO), home.file("server.py", SERVER));
        let protoset = home.dir().join("pets.binpb");
        let done = Command::new(protoc)
            .arg("--include_imports")
            .arg(format!("--descriptor_set_out={}", protoset.display()))
            .arg(format!("--proto_path={}", home.dir().display()))
            .arg(&proto)
            .output()
            .unwrap();
        assert!(done.status.success(), "{done:?}");
        let (protoset, port) = (protoset.to_str().unwrap().to_owned(), free_port());
        let program =
            Program::new(&[python.to_str().unwrap(), server.to_str().unwrap(), &protoset, &port.to_string()]);
        until("the server listens", Duration::from_secs(20), || TcpStream::connect(("127.0.0.1", port)).ok());
        Some(Self { _program: program, port, protoset })
    }
}

#[test]
fn messages_are_json_where_a_descriptor_set_is_given() {
    if quick("gRPC messages") {
        return;
    }
    let (_turn, home) = (turns(1), Home::new());
    let Some(pets) = Pets::new(&home) else { return };
    let people = home.file("pets.csv", "name,age\nRex,7\n\"Mi\"\"a\",70\nMethuselah,969\nNobody,some\n");
    let feed = format!("pets={}", people.display());
    let url = format!("grpc://127.0.0.1:{}/pets.Pets/Find", pets.port);
    let load = |body: &str, more: &[&str], code: i32| {
        let args = [&url, "--protoset", &pets.protoset, "--body", body, "--rate", "40/s", "--for", "2s"];
        sent(&home, &[&args[..], &["--no-probe"], more].concat(), code)
    };
    let rex = r#"{"name": "Rex", "age": 7, "tags": ["a", "b"]}"#;
    let expects = ["--expect", "json /pet/tags/1 = b", "--expect", "json /old = false"];
    let result = load(rex, &[&expects[..], &["--workers", "2"]].concat(), 0);
    assert_eq!(count(&result, "ok"), 80, "{result}");
    let result = load(rex, &["--expect", "json /pet/age = 8"], 6);
    assert_eq!(result["errors"], json!({"expectation": 80}));
    // Of four rows one is not found, and one makes no message.
    let row = r#"{"name": "${pets.name}", "age": "${pets.age}"}"#;
    let result = load(row, &["--feed", &feed, "--expect", "json /pet/name"], 0);
    assert_eq!(result["errors"], json!({"data": 20, "status": 20}), "{result}");
    assert_eq!((&result["statuses"]["200"], &result["statuses"]["5"]), (&json!(40), &json!(20)), "{result}");
    refusals(&home, &pets);
    drop(pets);
    home.assert_nothing_left();
}

fn refusals(home: &Home, pets: &Pets) {
    let server = format!("grpc://127.0.0.1:{}", pets.port);
    for (call, body, why) in [
        ("pets.Pets/Find", r#"{"nam": "x"}"#, "no pets.Pet in JSON: unrecognized field name 'nam'"),
        ("pets.Pets/Get", "{}", "no method `Get`: it has Find, Watch"),
        ("pets.Cats/Find", "{}", "no service `pets.Cats`: it has pets.Pets"),
        ("pets.Pets/Watch", "{}", "is a stream"),
    ] {
        let url = format!("{server}/{call}");
        let args =
            ["load", &url, "--protoset", &pets.protoset, "--body", body, "--rate", "1/s", "--for", "1s"];
        let done = home.squall(&args).code(2);
        assert!(done.err.replace('\n', " ").contains(why), "{why}: {}", done.err);
    }
    let plain = ["load", "http://127.0.0.1:1/", "--protoset", &pets.protoset, "--rate", "1/s", "--for", "1s"];
    assert!(home.squall(&plain).code(2).err.contains("--protoset has no effect on http"));
    for (scheme, more, says) in [
        ("grpc", "", None),
        ("http", "", Some("protoset has no effect")),
        ("grpc", "x", Some("pets.Pet in JSON")),
    ] {
        let text = format!(
            "squall: v1\nexperiment: pets\nquestion: Are they found?\nload:\n  - find:\n      open:\n        url: \
             \"{scheme}://127.0.0.1:{port}/pets.Pets/Find\"\n        protoset: pets.binpb\n        method: POST\n        \
             body: '{{\"age{more}\": 1}}'\n        expect: {{json: {{/pet/age: {{equals: 1}}}}}}\n        arrivals: [{{hold: {{rate: 20/s, for: \
             30s}}}}]\nobjectives:\n  - find: {{availability: \">= 90%\"}}\nrelays:\n  - a: {{upstream: \
             \"127.0.0.1:{port}\"}}\ntimeline:\n  - {{at: 4s, for: 2s, faults: [{{relay-latency: {{relay: a, delay: 1ms}}}}]}}\n",
            port = pets.port,
        );
        let file = home.file("pets.yaml", &text);
        let done = home.squall(&["check", file.to_str().unwrap()]).code(if says.is_some() { 2 } else { 0 });
        let said = done.err + &done.out;
        assert!(says.is_none_or(|says| said.contains(says) && said.contains("pets.yaml:")), "{said}");
    }
}
