//! The JSON Schema (2020-12) of the language, for editors and for CI. Faults come from the registry.
//!
//! `squall schema` prints it; `engine/schema/experiment.v1.json` is a copy that a test keeps equal. The schema knows
//! shapes and words; what only `squall check` knows (targets, times, sums) it cannot say.

use injectors::about::{Param, ParamKind, Presence};
use injectors::registry::INJECTORS;
use serde_json::{Map, Value, json};

/// The schema as a document.
pub fn experiment() -> Value {
    let mut defs = definitions();
    for injector in INJECTORS {
        let about = injector.about();
        let params: Vec<&Param> = about.params.iter().chain(about.target.selectors()).collect();
        let required: Vec<&str> = params
            .iter()
            .filter(|param| matches!(param.presence, Presence::Required))
            .map(|param| param.name)
            .collect();
        let properties: Map<String, Value> =
            params.iter().map(|param| (param.name.to_owned(), parameter(param))).collect();
        let mut schema = map(Value::Object(properties), &required);
        schema["description"] = json!(about.description);
        defs.insert(format!("fault-{}", about.name), schema);
    }
    let faults: Map<String, Value> = INJECTORS
        .iter()
        .map(|injector| {
            (injector.about().name.to_owned(), reference(&format!("fault-{}", injector.about().name)))
        })
        .collect();
    defs.insert("fault".to_owned(), one_key(Value::Object(faults)));
    let mut root = map(top_level(), &["squall", "experiment", "question", "load", "objectives", "timeline"]);
    root["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
    root["$id"] = json!("squall/experiment/v1");
    root["title"] = json!("squall experiment");
    root["$defs"] = Value::Object(defs);
    root
}

fn top_level() -> Value {
    let named = |of: &str| json!({"type": "array", "items": any_key(&reference(of))});
    json!({
        "squall": {"const": "v1", "description": "version of the language"},
        "experiment": {"type": "string", "pattern": "^[a-z0-9][a-z0-9._-]{0,79}$", "description": "its name"},
        "question": {"type": "string", "description": "the question that it asks, in words"},
        "owner": text("who owns it"),
        "vars": {"type": "object", "description": "values for ${name}; --set overrides them. They and defaults such as ${TOKEN:-x} are part of the record: what is secret comes from the environment or from --set", "additionalProperties": reference("text")},
        "lab": {"description": "the built-in lab to run on", "anyOf": [
            {"const": "edge"},
            one_key(json!({"edge": map(json!({
                "retries": number("tries beyond the first on every hop, 0 to 10"),
                "retry-budget": reference("share"),
                "cache": flag("whether the edges cache"),
                "service-time": {
                    "type": "object",
                    "description": "by service, how long one worker is busy with one request: a longer one makes a smaller lab",
                    "additionalProperties": false,
                    "properties": crate::lab::SERVICES.iter().map(|name| ((*name).to_owned(), reference("duration"))).collect::<Map<_, _>>(),
                },
            }), &[])})),
        ]},
        "topology": text("file with services, instances and dependencies"),
        "allow-hosts": {"type": "array", "items": reference("text"), "description": "hosts beyond this machine that may be loaded"},
        "relays": named("relay"),
        "protect": {"type": "array", "items": reference("text"), "description": "addresses and networks of other sides that no network fault hits, besides SSH"},
        "warm-up": reference("duration"),
        "feeds": {"type": "object", "description": "rows of data for requests, by name", "additionalProperties": map(json!({
            "file": text("CSV with a header (.tsv: tabs), or JSON lines (.jsonl, .ndjson, .json)"),
            "order": {"enum": ["sequential", "random", "unique"], "default": "sequential"},
        }), &["file"])},
        "load": named("load"),
        "objectives": named("objective"),
        "steady-state": {"type": "array", "items": reference("probe")},
        "timeline": {"type": "array", "minItems": 1, "items": map(json!({
            "at": reference("duration"),
            "for": reference("duration"),
            "faults": {"type": "array", "minItems": 1, "items": reference("fault")},
        }), &["at", "for", "faults"])},
        "guards": {"type": "array", "items": one_key(json!({"abort": {"anyOf": [
            reference("guard"),
            map(json!({"when": reference("guard")}), &["when"]),
        ]}}))},
        "recover-within": reference("duration"),
    })
}

fn definitions() -> Map<String, Value> {
    let quantity = |pattern: &str, example: &str| json!({"type": "string", "pattern": format!("^({pattern}|.*\\$\\{{.*)$"), "examples": [example]});
    let mut defs = Map::new();
    let mut put = |name: &str, schema: Value| defs.insert(name.to_owned(), schema);
    put("text", json!({"type": ["string", "number", "boolean"]}));
    put("duration", {
        let mut schema = quantity("([0-9.]+(ns|us|µs|ms|s|m|h))+|0", "250ms");
        schema["type"] = json!(["string", "number"]);
        schema
    });
    put("share", quantity("[0-9.]+%", "5%"));
    put("rate", quantity("[0-9.]+k?/[smh]", "50/s"));
    put("bandwidth", quantity("[0-9.]+(k|m|g)?bit|[0-9.]+([kKMG]i?)?B/s", "10mbit"));
    put("size", quantity("[0-9.]+([kKMG]i?)?B", "64KiB"));
    put("cores", {
        let mut schema = quantity("[0-9.]+m?", "0.5");
        schema["type"] = json!(["string", "number"]);
        schema
    });
    put(
        "guard",
        quantity(
            "(errors|throughput|p[0-9.]+) of \\S+ [<>] \\S+ for \\S+",
            "errors of checkout > 25% for 3s",
        ),
    );
    put(
        "status",
        json!({"anyOf": [{"type": "integer", "minimum": 100, "maximum": 599}, {"type": "string", "pattern": "^[1-5](xx|[0-9]{2}(-[1-5][0-9]{2})?)$"}]}),
    );
    put("statuses", json!({"anyOf": [reference("status"), {"type": "array", "items": reference("status")}]}));
    put(
        "phases",
        json!({"type": "array", "minItems": 1, "items": {"enum": ["baseline", "fault", "recovery", "after"]}}),
    );
    put(
        "relay",
        map(
            json!({
                "listen": text("127.0.0.1:PORT; a free port if left out"),
                "upstream": text("host:port"),
                "protocol": {"enum": ["tcp", "http"], "description": "http is needed by the http- faults"},
            }),
            &["upstream"],
        ),
    );
    put(
        "load",
        one_key(json!({"open": reference("open"), "users": people("users"), "sessions": people("sessions")})),
    );
    walking(&mut put);
    put("open", open());
    put("request", map(request(), &["url"]));
    put("arrivals", arrivals());
    put("objective", objective());
    put("probe", probe());
    defs
}

fn request() -> Value {
    json!({
        "url": text("http, https, grpc, grpcs, tcp, tls, udp or dns, and ://; its path and query may hold ${feed.column}, ${counter}, ${uuid}, ${random.1..100}"),
        "method": {"enum": ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]},
        "headers": {"type": "object", "additionalProperties": reference("text")},
        "body": {"anyOf": [
            text("may hold ${feed.column}, ${counter}, ${uuid}, ${random.1..100}; escaped for JSON or a form by its content-type, or if it begins with { or ["),
            one_key(json!({"file": text("a file that is sent as it is"), "template": text("a file with ${feed.column} and the like")})),
        ]},
        "reply": {"anyOf": [
            {"enum": ["echo", "first"]},
            one_key(json!({"bytes": number("its length"), "until": text("how it ends")})),
        ], "description": "where a reply ends, over tcp, tls and udp"},
        "weight": number("its share among the load's requests"),
        "expect": map(json!({
            "status": reference("statuses"),
            "body-contains": text("text that a good body holds"),
            "headers": {"type": "object", "description": "by name", "additionalProperties": {"anyOf": [
                {"const": "present"},
                one_key(json!({"equals": reference("text"), "contains": reference("text")})),
            ]}},
            "json": {"type": "object", "description": "by JSON pointer, such as /items/0/id", "additionalProperties": {"anyOf": [
                {"const": "present"},
                one_key(json!({"equals": reference("text")})),
            ]}},
        }), &[]),
    })
}

/// What journeys are made of.
fn walking(put: &mut impl FnMut(&str, Value) -> Option<Value>) {
    put("journey", journey());
    put(
        "steps",
        json!({"type": "array", "minItems": 1, "items": any_key(&json!({"anyOf": [reference("step"), reference("choose")]}))}),
    );
    put("step", step());
    put(
        "choose",
        json!({"type": "array", "minItems": 1, "items": any_key(&map(json!({
        "weight": number("how often it is taken, relative to the others"),
        "steps": reference("steps"),
    }), &["steps"]))}),
    );
    put(
        "think",
        json!({"anyOf": [
            reference("duration"),
            map(json!({"from": reference("duration"), "to": reference("duration")}), &["from", "to"]),
            map(json!({"about": {"description": "a mean: pauses are exponential, none longer than ten times that", "$ref": "#/$defs/duration"}}), &["about"]),
        ], "description": "the pause after a step"}),
    );
}

/// `users` or `sessions`.
fn people(what: &str) -> Value {
    let mut properties = json!({
        "journey": reference("journey"),
        "deadline": reference("duration"),
        "connect-timeout": reference("duration"),
        "pop-header": text("response header that names the PoP; x-squall-pop if left out"),
        "processes": number("how many processes share the people, 1 to 16; as many as it takes if left out"),
        "tls": map(json!({"ca": text("PEM file of a further authority"), "insecure": flag("any certificate will do")}), &[]),
    });
    let (own, required) = if what == "users" {
        let own = json!({
            "count": number("how many people"),
            "ramp": reference("duration"),
            "for": reference("duration"),
            "rows": {"enum": ["each-walk", "each-user"], "description": "how long a user keeps the rows of his feeds; each-walk if left out"},
        });
        (own, ["count", "for", "journey"].as_slice())
    } else {
        let own = json!({
            "arrivals": reference("arrivals"),
            "poisson": flag("random gaps instead of even ones"),
            "at-most": number("sessions under way at a time; further ones wait, and their time runs; 1000 if left out"),
        });
        (own, ["arrivals", "journey"].as_slice())
    };
    if let (Value::Object(properties), Value::Object(own)) = (&mut properties, own) {
        properties.extend(own);
    }
    map(properties, required)
}

fn journey() -> Value {
    map(
        json!({
            "base": text("http:// or https:// and a host: what paths are put below"),
            "think": reference("think"),
            "cookies": flag("each user keeps the cookies that are set; true if left out"),
            "retry": map(json!({
                "attempts": number("tries in all, 2 to 10"),
                "backoff": reference("duration"),
                "jitter": reference("share"),
                "budget": reference("share"),
            }), &["attempts"]),
            "on-start": reference("steps"),
            "steps": reference("steps"),
            "on-stop": reference("steps"),
        }),
        &["steps"],
    )
}

fn step() -> Value {
    let mut properties = request();
    let place = one_key(json!({
        "json": text("a JSON pointer into the body, such as /items/0/id"),
        "header": text("its name"),
        "cookie": text("the name of a cookie that the answer sets"),
        "regex": text("a regular expression over the body: its one group, or all of it"),
        "between": {"type": "array", "items": reference("text"), "minItems": 2, "maxItems": 2},
    }));
    let own = json!({
        "path": text("below the journey's base"),
        "think": reference("think"),
        "extract": {"type": "object", "additionalProperties": place, "description": "values for ${name} in later steps; one that is not there fails the step"},
    });
    if let (Value::Object(properties), Value::Object(own)) = (&mut properties, own) {
        properties.remove("weight");
        properties.extend(own);
    }
    map(properties, &[])
}

fn open() -> Value {
    let mut properties = request();
    let own = json!({
        "requests": {"type": "array", "minItems": 1, "items": any_key(&reference("request"))},
        "arrivals": reference("arrivals"),
        "replay": map(json!({
            "log": text("an access log or a HAR, sent again to the url"),
            "format": {"enum": ["combined", "json", "har"], "description": "what it looks like if left out"},
            "speed": text("how much faster than it was, such as 2x"),
            "methods": {"type": "array", "items": reference("text"), "description": "GET and HEAD if left out"},
            "fields": {"type": "object", "description": "where JSON lines have what: time, method, path, request, took, body", "additionalProperties": reference("text")},
            "keep-secrets": flag("send again what looks like a secret in queries and bodies"),
        }), &["log"]),
        "poisson": flag("random gaps instead of even ones"),
        "reuse": flag("connections are kept alive; true if left out"),
        "deadline": reference("duration"),
        "connect-timeout": reference("duration"),
        "connections": number("the most connections at a time"),
        "pop-header": text("response header that names the PoP; x-squall-pop if left out"),
        "tls": map(json!({
            "ca": text("PEM file of a further authority"),
            "insecure": flag("any certificate will do"),
            "server-name": text("name to ask for and to check"),
            "certificate": text("PEM file, with its chain, to show to servers that ask for one"),
            "key": text("PEM file with its key"),
            "resume": flag("resume sessions of earlier connections; true if left out"),
        }), &[]),
        "http": {"enum": [1, 1.1, 2, 3], "description": "which HTTP is spoken; 1 if left out; 2 without TLS is begun by prior knowledge; 3 (over QUIC) wants https"},
        "streams": number("the most requests that a connection carries at a time, over HTTP/2, HTTP/3 or gRPC; 100 if left out"),
        "protoset": text("for grpc and grpcs: a descriptor set, as `protoc --include_imports --descriptor_set_out=FILE` writes it; bodies are then messages in JSON, and so are the answers that `expect` looks at"),
        "when-busy": {"enum": ["queue", "shed"], "description": "what happens to a request that finds every connection busy; queue if left out"},
        "exact": flag("start each request within microseconds of its time, on a core that is never idle"),
        "unix-socket": text("a Unix socket in place of the URL's host"),
        "sources": {"type": "array", "items": text("an address of this machine"), "description": "where connections come from, in turn"},
    });
    if let (Value::Object(properties), Value::Object(own)) = (&mut properties, own) {
        properties.remove("weight");
        properties.extend(own);
    }
    let mut open = map(properties, &[]);
    open["oneOf"] = json!([{"required": ["arrivals"]}, {"required": ["replay"]}]);
    open
}

fn arrivals() -> Value {
    let hold = map(json!({"rate": reference("rate"), "for": reference("duration")}), &["for"]);
    let stretches = json!({
        "hold": {"anyOf": [reference("duration"), hold]},
        "ramp": map(json!({"from": reference("rate"), "to": reference("rate"), "over": reference("duration")}), &["to", "over"]),
        "steps": map(json!({"from": reference("rate"), "to": reference("rate"), "count": number("stairs, at least 2"), "each": reference("duration")}), &["to", "count", "each"]),
        "spike": map(json!({"to": reference("rate"), "for": reference("duration")}), &["to", "for"]),
        "sine": map(json!({
            "mean": reference("rate"),
            "amplitude": {"anyOf": [reference("rate"), reference("share")]},
            "period": reference("duration"),
            "for": reference("duration"),
        }), &["amplitude", "period", "for"]),
    });
    json!({"type": "array", "minItems": 1, "items": one_key(stretches)})
}

fn objective() -> Value {
    json!({
        "type": "object",
        "properties": {
            "availability": {"type": "string", "pattern": "^\\s*>=", "examples": [">= 99.9%"]},
            "throughput": {"type": "string", "pattern": "^\\s*[<>]=", "examples": [">= 380/s"]},
            "phases": reference("phases"),
        },
        "patternProperties": {"^p[0-9]+(\\.[0-9]+)?$": {"type": "string", "pattern": "^\\s*<=", "examples": ["<= 250ms"]}},
        "additionalProperties": false,
        "minProperties": 1,
    })
}

fn probe() -> Value {
    let with = |own: Value, required: &[&str]| {
        let mut properties = json!({
            "name": text("its name"),
            "every": reference("duration"),
            "deadline": reference("duration"),
            "phases": reference("phases"),
            "share": reference("share"),
        });
        if let (Value::Object(properties), Value::Object(own)) = (&mut properties, own) {
            properties.extend(own);
        }
        map(properties, required)
    };
    one_key(json!({
        "http": with(json!({"url": text("http://…"), "status": reference("statuses"), "body-contains": text("text that a good body holds")}), &["name", "url"]),
        "tcp": with(json!({"address": text("host:port")}), &["name", "address"]),
        "command": with(json!({"argv": {"type": "array", "minItems": 1, "items": reference("text")}, "exit": number("good exit code; 0 if left out")}), &["name", "argv"]),
    }))
}

fn parameter(param: &Param) -> Value {
    let mut schema = match param.kind {
        ParamKind::Span => reference("duration"),
        ParamKind::Share => reference("share"),
        ParamKind::Rate => reference("rate"),
        ParamKind::Bandwidth => reference("bandwidth"),
        ParamKind::Size => reference("size"),
        ParamKind::Cores => reference("cores"),
        ParamKind::Int { min, max } => {
            json!({"anyOf": [{"type": "integer", "minimum": min, "maximum": max}, {"type": "string", "pattern": "^\\$\\{"}]})
        }
        ParamKind::Flag => json!({"type": "boolean"}),
        ParamKind::Choice(words) => json!({"enum": words}),
        ParamKind::Text => reference("text"),
        ParamKind::Argv => json!({"type": "array", "minItems": 1, "items": reference("text")}),
        ParamKind::Shares => json!({"type": "array", "minItems": 1, "items": reference("share")}),
        ParamKind::Map => json!({"type": "object", "additionalProperties": reference("text")}),
    };
    schema["description"] = json!(param.help);
    if let Presence::Default(text) = param.presence {
        schema["default"] = match param.kind {
            ParamKind::Flag => json!(text == "true"),
            _ => json!(text),
        };
    }
    schema
}

fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/$defs/{name}")})
}

fn text(description: &str) -> Value {
    json!({"type": ["string", "number", "boolean"], "description": description})
}

fn number(description: &str) -> Value {
    json!({"anyOf": [{"type": "integer"}, {"type": "string", "pattern": "^\\$\\{"}], "description": description})
}

fn flag(description: &str) -> Value {
    json!({"type": "boolean", "description": description})
}

/// An object with these fields and no others.
fn map(properties: impl Into<Value>, required: &[&str]) -> Value {
    let properties: Value = properties.into();
    json!({"type": "object", "properties": properties, "required": required, "additionalProperties": false})
}

/// An object with exactly one of these keys.
fn one_key(properties: impl Into<Value>) -> Value {
    let properties: Value = properties.into();
    json!({"type": "object", "properties": properties, "additionalProperties": false, "minProperties": 1, "maxProperties": 1})
}

/// An object with exactly one key, whatever it is.
fn any_key(value: &Value) -> Value {
    json!({"type": "object", "additionalProperties": value, "minProperties": 1, "maxProperties": 1})
}
