//! `squall faults`: the registry, as people and programs read it.

use std::fmt::Write as _;

use clap::Args;
use injectors::About;
use injectors::about::{Param, Presence};
use injectors::registry::{self, INJECTORS};
use serde_json::{Value, json};

use super::out::Out;
use crate::experiment::mistake::suggest;
use crate::slo::exit;

/// Which fault.
#[derive(Debug, Args)]
pub(super) struct FaultsArgs {
    /// Show all of one fault
    #[arg(value_name = "FAULT")]
    name: Option<String>,
}

pub(super) fn faults(args: &FaultsArgs, out: &mut Out) -> u8 {
    let Some(name) = &args.name else {
        if out.json {
            let all: Vec<Value> = INJECTORS.iter().map(|injector| document(injector.about())).collect();
            out.document(&json!({"faults": all}));
        } else {
            let lines: String = INJECTORS
                .iter()
                .map(|injector| format!("{:<20} {}\n", injector.about().name, injector.about().summary))
                .collect();
            out.result(lines.as_bytes());
            out.tell("\nall of one fault: squall faults NAME; try it: squall inject NAME … --for 30s");
        }
        return exit::HELD;
    };
    let Some(injector) = registry::find(name) else {
        let known: Vec<&str> = INJECTORS.iter().map(|injector| injector.about().name).collect();
        return out.fail(exit::INVALID, &format!("there is no fault `{name}`; {}", suggest(name, &known)));
    };
    if out.json {
        out.document(&document(injector.about()));
    } else {
        out.result(page(injector.about()).as_bytes());
    }
    exit::HELD
}

fn document(about: &About) -> Value {
    let param = |param: &Param| {
        let (required, default) = match param.presence {
            Presence::Required => (true, None),
            Presence::Optional => (false, None),
            Presence::Default(text) => (false, Some(text)),
        };
        json!({"name": param.name, "accepts": param.kind.accepts(), "required": required, "default": default, "help": param.help})
    };
    json!({
        "name": about.name,
        "summary": about.summary,
        "description": about.description,
        "effect": about.effect,
        "params": about.params.iter().map(param).collect::<Vec<_>>(),
        "selectors": about.target.selectors().iter().map(param).collect::<Vec<_>>(),
        "needs": about.needs,
        "proof": about.proof,
        "undo": about.undo,
        "example": about.example,
    })
}

fn page(about: &About) -> String {
    let mut page = format!("{}: {}\n\n", about.name, about.summary);
    for line in wrap(about.description, 96) {
        let _ = writeln!(page, "  {line}");
    }
    section(&mut page, "parameters", about.params);
    section(&mut page, "target", about.target.selectors());
    let needs = if about.needs.is_empty() { "nothing".to_owned() } else { about.needs.join("; ") };
    for (title, text) in [("needs", needs.as_str()), ("proof", about.proof), ("undo", about.undo)] {
        let _ = writeln!(page, "\n{title}");
        for line in wrap(text, 96) {
            let _ = writeln!(page, "  {line}");
        }
    }
    let _ = writeln!(page, "\nexample\n  {}", about.example);
    page
}

fn section(page: &mut String, title: &str, params: &[Param]) {
    if params.is_empty() {
        return;
    }
    let _ = writeln!(page, "\n{title}");
    for param in params {
        let presence = match param.presence {
            Presence::Required => "required".to_owned(),
            Presence::Optional => "optional".to_owned(),
            Presence::Default(text) => format!("default {text}"),
        };
        let _ = writeln!(page, "  {:<14} {} ({presence})", param.name, param.kind.accepts());
        for line in wrap(param.help, 80) {
            let _ = writeln!(page, "  {:<14} {line}", "");
        }
    }
}

/// Words in lines of at most this many characters.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let line = lines.last_mut().expect("there is always a line");
        if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > width {
            lines.push(word.to_owned());
        } else {
            line.push_str(if line.is_empty() { "" } else { " " });
            line.push_str(word);
        }
    }
    lines
}
