//! The test that the record and its schema say the same, with a checker for the part of JSON Schema that is used.

use serde_json::Value;

use crate::sample;

fn is_of_type(value: &Value, name: &str) -> bool {
    match name {
        "string" => value.is_string(),
        "number" => value.is_number(),
        "integer" => value.is_u64() || value.is_i64(),
        "boolean" => value.is_boolean(),
        "object" => value.is_object(),
        "array" => value.is_array(),
        "null" => value.is_null(),
        other => panic!("unknown type {other}"),
    }
}

/// All ways in which a value departs from a schema; an unknown keyword is one of them, so that none is ignored.
fn departures(root: &Value, schema: &Value, value: &Value, path: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (keyword, rule) in schema.as_object().unwrap() {
        let inner = |schema: &Value, value: &Value, part: &str| {
            departures(root, schema, value, &format!("{path}/{part}"))
        };
        match keyword.as_str() {
            "$schema" | "$id" | "title" | "description" | "$defs" | "properties" => {}
            "$ref" => found.extend(inner(
                root.pointer(rule.as_str().unwrap().strip_prefix('#').unwrap()).unwrap(),
                value,
                "",
            )),
            "type" => {
                let is = |name: &Value| is_of_type(value, name.as_str().unwrap());
                if !(rule.as_array().map_or_else(|| is(rule), |names| names.iter().any(is))) {
                    found.push(format!("{path}: {value} is no {rule}"));
                }
            }
            "enum" | "const" | "minimum" | "maximum" | "maxItems" => {
                let fits = match keyword.as_str() {
                    "enum" => rule.as_array().unwrap().contains(value),
                    "const" => rule == value,
                    "minimum" => value.as_f64() >= rule.as_f64(),
                    "maximum" => value.as_f64() <= rule.as_f64(),
                    _ => value.as_array().is_none_or(|items| items.len() as u64 <= rule.as_u64().unwrap()),
                };
                if !fits {
                    found.push(format!("{path}: {value} departs from {keyword} {rule}"));
                }
            }
            "oneOf" => {
                let fits = rule.as_array().unwrap().iter().filter(|s| inner(s, value, "").is_empty()).count();
                if fits != 1 {
                    found.push(format!("{path}: {value} fits {fits} alternatives"));
                }
            }
            "items" => {
                for item in value.as_array().into_iter().flatten() {
                    found.extend(inner(rule, item, "[]"));
                }
            }
            "required" => {
                let missing = |name: &&Value| {
                    value.as_object().is_some_and(|o| !o.contains_key(name.as_str().unwrap()))
                };
                found.extend(
                    rule.as_array().unwrap().iter().filter(missing).map(|n| format!("{path}: no {n}")),
                );
            }
            "additionalProperties" => {
                for (name, field) in value.as_object().into_iter().flatten() {
                    match (schema.get("properties").and_then(|p| p.get(name)), rule) {
                        (Some(own), _) => found.extend(inner(own, field, name)),
                        (None, Value::Bool(false)) => found.push(format!("{path}: {name} is unknown")),
                        (None, rule) => found.extend(inner(rule, field, name)),
                    }
                }
            }
            other => found.push(format!("{path}: the checker does not know {other}")),
        }
    }
    found
}

fn check(value: &Value) -> Vec<String> {
    let schema: Value = serde_json::from_str(crate::RECORD_SCHEMA).unwrap();
    departures(&schema, &schema, value, "")
}

#[test]
fn every_sample_follows_the_schema() {
    for (name, record) in sample::all() {
        assert_eq!(check(&serde_json::to_value(record).unwrap()), Vec::<String>::new(), "{name}");
    }
}

#[test]
fn a_missing_unknown_or_wrong_field_departs_from_the_schema() {
    let good = serde_json::to_value(sample::missed()).unwrap();
    let broken: [fn(&mut Value); 6] = [
        |v| drop(v["judgement"].as_object_mut().unwrap().remove("exit")),
        |v| v["news"] = Value::Null,
        |v| v["seed"] = "42".into(),
        |v| v["phases"][0]["phase"] = "lunch".into(),
        |v| v["end"] = "exploded".into(),
        |v| v["schema"] = "squall/record/v2".into(),
    ];
    for (at, breaks) in broken.iter().enumerate() {
        let mut value = good.clone();
        breaks(&mut value);
        assert!(!check(&value).is_empty(), "case {at}");
    }
}
