//! Two schemas: that of the language is generated and checked in, that of the record is written by hand. Both must say
//! what the binary does.

use serde_json::Value;

use crate::language::mistakes;
use crate::lifecycle::experiment;
use crate::support::text::yaml;
use crate::support::{Home, root, scenarios};

fn language() -> jsonschema::Validator {
    jsonschema::validator_for(&Home::new().json(&["schema"])).unwrap()
}

/// Every way in which a document does not fit.
pub(crate) fn misfits(schema: &jsonschema::Validator, document: &Value) -> Vec<String> {
    schema.iter_errors(document).map(|error| format!("{}: {error}", error.instance_path())).collect()
}

#[test]
fn the_schema_checked_in_is_the_one_that_squall_prints() {
    let printed = Home::new().squall(&["schema"]).code(0).out;
    let path = root().join("engine/schema/experiment.v1.json");
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        kept == printed,
        "{} is out of date; type: cargo run -- schema > engine/schema/experiment.v1.json",
        path.display()
    );
}

#[test]
fn the_schemas_are_schemas() {
    let home = Home::new();
    for name in ["experiment", "record"] {
        let schema = home.json(&["schema", name]);
        assert!(jsonschema::meta::is_valid(&schema), "{name}");
    }
}

#[test]
fn every_scenario_fits_the_schema() {
    let schema = language();
    for path in scenarios() {
        let document = yaml(&std::fs::read_to_string(&path).unwrap());
        assert_eq!(misfits(&schema, &document), Vec::<String>::new(), "{}", path.display());
    }
}

#[test]
fn everything_that_the_language_knows_fits_the_schema() {
    let (schema, home) = (language(), Home::new());
    let file = home.file("all.yaml", crate::language::EVERYTHING);
    home.squall(&["check", file.to_str().unwrap()]).code(0);
    assert_eq!(misfits(&schema, &yaml(crate::language::EVERYTHING)), Vec::<String>::new());
}

#[test]
fn the_example_of_every_fault_fits_the_schema() {
    let schema = language();
    for injector in injectors::registry::INJECTORS {
        let about = injector.about();
        let document = yaml(&experiment(about.example, ""));
        assert_eq!(misfits(&schema, &document), Vec::<String>::new(), "{}", about.name);
    }
}

#[test]
fn what_is_wrong_in_shape_does_not_fit_the_schema() {
    let schema = language();
    let mut tried = 0;
    for (name, text, by_shape) in mistakes() {
        if by_shape {
            tried += 1;
            assert!(!schema.is_valid(&yaml(&text)), "the schema lets `{name}` pass");
        }
    }
    assert!(tried >= 10, "only {tried} mistakes were tried");
}
