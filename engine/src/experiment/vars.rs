//! `${name}` and `${ENV:-default}`: the whole of the templating language.
//!
//! Substitution works on single values after the YAML has been read, so no value can change the structure of a file.
//! Names with small letters come from `vars:` and `--set`; names with capitals from the environment. `$${` stands for
//! a plain `${`. Names that only a run knows (`lab.edge`, `relay.NAME`) stay as they are until then, and in the URL, the
//! headers and the body of a request so do slots (`users.id`, `counter`), which are filled in for each request
//! ([`crate::template`]).

use std::cell::RefCell;
use std::collections::BTreeMap;

use super::mistake::nearest;
use crate::template::Known;

/// Where values come from.
#[derive(Debug, Clone, Default)]
pub struct Vars {
    /// From `vars:` and `--set`.
    pub own: BTreeMap<String, String>,
    /// The environment.
    pub env: BTreeMap<String, String>,
    /// Names that only a run knows; kept.
    pub late: Vec<String>,
    /// Names whose values came from outside of the file (`--set`), besides the environment.
    pub outside: Vec<String>,
    /// Values from outside that were used, by name.
    pub used: RefCell<BTreeMap<String, String>>,
}

/// Why a text could not be substituted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VarError {
    /// What is wrong.
    pub message: String,
    /// The way out.
    pub help: String,
}

impl Vars {
    /// Replaces every `${…}` in a text.
    ///
    /// # Errors
    /// A name is unknown, has no default, or the braces do not close.
    pub fn substitute(&self, text: &str) -> Result<String, VarError> {
        self.walk(text, None)
    }

    /// The same for a text whose slots are filled in later: they stay, names that only a run knows stay, `$${` stays, and no
    /// value becomes a slot.
    ///
    /// # Errors
    /// As [`Self::substitute`].
    pub fn substitute_around(&self, text: &str, slots: &Known<'_>) -> Result<String, VarError> {
        self.walk(text, Some(slots))
    }

    fn walk(&self, text: &str, slots: Option<&Known<'_>>) -> Result<String, VarError> {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(at) = rest.find("${") {
            if rest[..at].ends_with('$') {
                out.push_str(&rest[..at - 1]);
                out.push_str(if slots.is_some() { "$${" } else { "${" });
                rest = &rest[at + 2..];
                continue;
            }
            out.push_str(&rest[..at]);
            let inner = &rest[at + 2..];
            let Some(end) = inner.find('}') else {
                let help = "close it with `}`, or write `$${` for a plain `${`".to_owned();
                return Err(VarError { message: "`${` is not closed".to_owned(), help });
            };
            let name = &inner[..end];
            rest = &inner[end + 1..];
            match slots {
                None => out.push_str(&self.value(name, &[])?),
                Some(slots) if slots.slot(name).is_some() => out.push_str(&format!("${{{name}}}")),
                Some(_) if self.late.iter().any(|late| late == name) => out.push_str(&format!("${{{name}}}")),
                Some(slots) => {
                    let value = self.value(name, &slots.names())?;
                    out.push_str(&value.replace("${", "$${"));
                    if value.ends_with('$') && rest.starts_with('{') {
                        out.push('$');
                    }
                }
            }
        }
        out.push_str(rest);
        Ok(out)
    }

    fn value(&self, inner: &str, slots: &[String]) -> Result<String, VarError> {
        let (name, default) =
            inner.split_once(":-").map_or((inner, None), |(name, default)| (name, Some(default)));
        if self.late.iter().any(|late| late == name) {
            return Ok(format!("${{{name}}}"));
        }
        let from_env = name.starts_with(|c: char| c.is_ascii_uppercase());
        let known = if from_env { &self.env } else { &self.own };
        if let Some(value) = known.get(name) {
            if from_env || self.outside.iter().any(|outside| outside == name) {
                self.used.borrow_mut().insert(name.to_owned(), value.clone());
            }
            return Ok(value.clone());
        }
        if let Some(default) = default {
            return Ok(default.to_owned());
        }
        let help = if from_env {
            format!("set it in the environment, or give it a default: `${{{name}:-…}}`")
        } else if slots.is_empty() && Known::default().slot(name).is_some() {
            "it is filled in for each request: in the `url`, the `headers` and the `body` of a load"
                .to_owned()
        } else {
            let names = self.own.keys().chain(&self.late).chain(slots).map(String::as_str);
            match nearest(name, names) {
                Some(meant) => format!("did you mean `${{{meant}}}`?"),
                None => "declare it under `vars:`, or pass `--set name=value`".to_owned(),
            }
        };
        Err(VarError { message: format!("`${{{name}}}` is not set"), help })
    }
}

/// Replaces the late names, once a run knows them; unknown ones stay.
pub fn substitute_late(text: &str, known: &BTreeMap<String, String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        let (before, found) = rest.split_at(at);
        out.push_str(before);
        let name = found[2..].split_once('}').map(|(name, _)| name).filter(|_| !before.ends_with('$'));
        let value = name.and_then(|name| Some((known.get(name)?, name.len() + 3)));
        let (put, used) = value.map_or(("${", 2), |(value, used)| (value.as_str(), used));
        out.push_str(put);
        rest = &found[used..];
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn vars() -> Vars {
        Vars {
            own: [("host".to_owned(), "h".to_owned())].into(),
            env: [("PORT".to_owned(), "80".to_owned())].into(),
            late: vec!["lab.edge".to_owned()],
            ..Vars::default()
        }
    }

    #[test]
    fn names_defaults_escapes_and_late_names() {
        let put = |text| vars().substitute(text);
        assert_eq!(put("http://${host}:${PORT}/").unwrap(), "http://h:80/");
        assert_eq!(put("${NOT_THERE:-x}").unwrap(), "x");
        assert_eq!(put("$${host}").unwrap(), "${host}");
        assert_eq!(put("${lab.edge}").unwrap(), "${lab.edge}");
        assert!(put("${hots}").unwrap_err().help.contains("did you mean `${host}`"));
        assert!(put("${NOT_THERE}").unwrap_err().help.contains("environment"));
        assert!(put("${open").is_err());
    }

    #[test]
    fn slots_and_late_names_stay_and_no_value_becomes_one() {
        let feeds = [("users".to_owned(), vec!["id".to_owned()])];
        let known = Known { feeds: &feeds, extracted: &[] };
        let mut vars = vars();
        vars.own.insert("sly".to_owned(), "${users.id}$".to_owned());
        let put = |text| vars.substitute_around(text, &known);
        assert_eq!(
            put("http://${lab.edge}/${users.id}?h=${host}").unwrap(),
            "http://${lab.edge}/${users.id}?h=h"
        );
        assert_eq!(put("$${users.id} ${sly}{uuid}").unwrap(), "$${users.id} $${users.id}$${uuid}");
        assert!(put("${user.id}").unwrap_err().help.contains("did you mean `${users.id}`?"));
        assert!(put("${uuid:-x}").unwrap().contains('x'), "a default is for what is not known");
        assert!(vars.substitute("${counter}").unwrap_err().help.contains("for each request"));
        let late: BTreeMap<_, _> = [("lab.edge".to_owned(), "127.0.0.1:80".to_owned())].into();
        let text = "$${lab.edge} ${lab.edge} ${users.id} ${";
        assert_eq!(substitute_late(text, &late), "$${lab.edge} 127.0.0.1:80 ${users.id} ${");
    }

    proptest! {
        #[test]
        fn a_text_without_dollars_stays_as_it_is(text in "[^$]{0,40}") {
            prop_assert_eq!(vars().substitute(&text).unwrap(), text);
        }

        #[test]
        fn no_text_makes_it_panic(text in "[${}a:-]{0,20}") {
            let _ = vars().substitute(&text);
        }
    }
}
