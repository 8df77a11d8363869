//! The test that the record and its schema say the same, with a checker for the part of JSON Schema that is used.

use serde_json::Value;

use crate::sample;

/// All ways in which a value departs from a schema; an unknown keyword is one of them, so that none is ignored.
fn departures(root: &Value, schema: &Value, value: &Value, path: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (keyword, rule) in schema.as_object().unwrap() {
        let inner = |schema: &Value, value: &Value, part: &str| {
            departures(root, schema, value, &format!("{path}/{part}"))
        };
        match keyword.as_str() {
            "$schema" | "$id" | "title" | "description" | "$defs" => {}
            "$ref" => found.extend(inner(
                root.pointer(rule.as_str().unwrap().strip_prefix('#').unwrap()).unwrap(),
                value,
                "",
            )),
            "type" => {
                let is = |name: &Value| match name.as_str().unwrap() {
                    "string" => value.is_string(),
                    "number" => value.is_number(),
                    "integer" => value.is_u64() || value.is_i64(),
                    "boolean" => value.is_boolean(),
                    "object" => value.is_object(),
                    "array" => value.is_array(),
                    "null" => value.is_null(),
                    other => panic!("unknown type {other}"),
                };
                if !(rule.as_array().map_or_else(|| is(rule), |names| names.iter().any(is))) {
                    found.push(format!("{path}: {value} is no {rule}"));
                }
            }
            "enum" if !rule.as_array().unwrap().contains(value) => {
                found.push(format!("{path}: {value} not in {rule}"))
            }
            "const" if rule != value => found.push(format!("{path}: {value} is not {rule}")),
            "minimum" if value.as_f64() < rule.as_f64() => found.push(format!("{path}: {value} < {rule}")),
            "maximum" if value.as_f64() > rule.as_f64() => found.push(format!("{path}: {value} > {rule}")),
            "maxItems" if value.as_array().unwrap().len() as u64 > rule.as_u64().unwrap() => {
                found.push(format!("{path}: more than {rule} items"));
            }
            "enum" | "const" | "minimum" | "maximum" | "maxItems" => {}
            "oneOf" => {
                let fits = rule.as_array().unwrap().iter().filter(|s| inner(s, value, "").is_empty()).count();
                if fits != 1 {
                    found.push(format!("{path}: {value} fits {fits} alternatives"));
                }
            }
            "items" => {
                value.as_array().into_iter().flatten().for_each(|v| found.extend(inner(rule, v, "[]")))
            }
            "required" => {
                let missing = |name: &&Value| {
                    value.as_object().is_some_and(|o| !o.contains_key(name.as_str().unwrap()))
                };
                found.extend(
                    rule.as_array().unwrap().iter().filter(missing).map(|n| format!("{path}: no {n}")),
                );
            }
            "properties" | "propertyNames" => {}
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
