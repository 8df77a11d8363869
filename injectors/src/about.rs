//! What a fault says about itself: the one source of its help, its check, its JSON Schema and its docs.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::target::TargetKind;
use crate::units::{Bandwidth, Cores, Rate, Share, Size, Span};

/// Everything that there is to know about one kind of fault.
#[derive(Debug)]
pub struct About {
    /// The name in YAML, on the command line and in records, such as `relay-latency`.
    pub name: &'static str,
    /// One line, without a full stop.
    pub summary: &'static str,
    /// What it does, to what, and what a user should know before using it.
    pub description: &'static str,
    /// What it acts on; brings the selector parameters.
    pub target: TargetKind,
    /// Its own parameters, in reading order.
    pub params: &'static [Param],
    /// What it needs: privileges, kernel features; empty when it needs nothing.
    pub needs: &'static [&'static str],
    /// What it does to its target while it lives.
    pub effect: Effect,
    /// How the effect is proven, in words.
    pub proof: &'static str,
    /// How it is undone, in words.
    pub undo: &'static str,
    /// One complete example, as the YAML of one list item.
    pub example: &'static str,
}

/// What a fault takes away while it lives: decides the words of a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Effect {
    /// The target serves nothing.
    Outage,
    /// The target serves, but badly.
    Degradation,
    /// The target answers wrongly, or breaks off.
    Errors,
    /// Traffic moves away from the target.
    Shift,
    /// Only the author of the experiment knows.
    Custom,
}

/// One parameter of a fault.
#[derive(Debug)]
pub struct Param {
    /// The key in YAML and, with two dashes, on the command line.
    pub name: &'static str,
    /// What it accepts.
    pub kind: ParamKind,
    /// Whether it must be written, and what holds when it is not.
    pub presence: Presence,
    /// One line, without a full stop.
    pub help: &'static str,
}

impl Param {
    /// One that may be left out.
    pub const fn optional(name: &'static str, kind: ParamKind, help: &'static str) -> Self {
        Self { name, kind, presence: Presence::Optional, help }
    }

    /// A text that may be left out.
    pub const fn text(name: &'static str, help: &'static str) -> Self {
        Self::optional(name, ParamKind::Text, help)
    }

    /// A share of all, which must be written: strength has no default.
    pub const fn share(help: &'static str) -> Self {
        Self { name: "share", kind: ParamKind::Share, presence: Presence::Required, help }
    }
}

/// Whether a parameter must be written.
#[derive(Debug, Clone, Copy)]
pub enum Presence {
    /// It must be written: strength, share and duration have no defaults.
    Required,
    /// It may be left out, with nothing in its place.
    Optional,
    /// It may be left out; this text is read in its place.
    Default(&'static str),
}

/// What a parameter accepts.
#[derive(Debug, Clone, Copy)]
pub enum ParamKind {
    /// A duration: `250ms`.
    Span,
    /// A share: `5%`.
    Share,
    /// Events per second: `50/s`.
    Rate,
    /// Bytes per second: `10mbit`.
    Bandwidth,
    /// Bytes: `64KiB`.
    Size,
    /// Processor cores: `2`, `0.5` or `500m`.
    Cores,
    /// A whole number in a range, ends included.
    Int {
        /// The smallest accepted.
        min: u64,
        /// The largest accepted.
        max: u64,
    },
    /// `true` or `false`.
    Flag,
    /// One of a few words.
    Choice(&'static [&'static str]),
    /// Any text of at most 4,096 bytes.
    Text,
    /// A command: a list of texts, the program first. Never given to a shell.
    Argv,
    /// A falling or rising list of shares: `[50%, 0%]`.
    Shares,
    /// A map of texts, such as headers.
    Map,
}

/// A parameter's value after the check.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Value {
    /// See [`ParamKind::Span`].
    Span(Span),
    /// See [`ParamKind::Share`].
    Share(Share),
    /// See [`ParamKind::Rate`].
    Rate(Rate),
    /// See [`ParamKind::Bandwidth`].
    Bandwidth(Bandwidth),
    /// See [`ParamKind::Size`].
    Size(Size),
    /// See [`ParamKind::Cores`].
    Cores(Cores),
    /// See [`ParamKind::Int`].
    Int(u64),
    /// See [`ParamKind::Flag`].
    Flag(bool),
    /// See [`ParamKind::Choice`] and [`ParamKind::Text`].
    Text(String),
    /// See [`ParamKind::Argv`].
    Argv(Vec<String>),
    /// See [`ParamKind::Shares`].
    Shares(Vec<Share>),
    /// See [`ParamKind::Map`].
    Map(BTreeMap<String, String>),
}

/// The longest text, and the longest list or map, that a parameter may hold.
pub const TEXT_MAX: usize = 4096;
/// The most items in a list or map parameter.
pub const ITEMS_MAX: usize = 64;

impl ParamKind {
    /// Reads one scalar as this kind.
    ///
    /// # Errors
    /// The sentence that completes "`delay`: …".
    pub fn parse(self, text: &str) -> Result<Value, String> {
        if text.len() > TEXT_MAX {
            return Err(format!("longer than {TEXT_MAX} bytes"));
        }
        let unit = |e: crate::units::UnitError| e.to_string();
        match self {
            Self::Span => text.parse().map(Value::Span).map_err(unit),
            Self::Share => text.parse().map(Value::Share).map_err(unit),
            Self::Rate => text.parse().map(Value::Rate).map_err(unit),
            Self::Bandwidth => text.parse().map(Value::Bandwidth).map_err(unit),
            Self::Size => text.parse().map(Value::Size).map_err(unit),
            Self::Cores => text.parse().map(Value::Cores).map_err(unit),
            Self::Int { min, max } => match text.parse::<u64>() {
                Ok(n) if (min..=max).contains(&n) => Ok(Value::Int(n)),
                _ => Err(format!("`{text}` is not a whole number from {min} to {max}")),
            },
            Self::Flag => match text {
                "true" => Ok(Value::Flag(true)),
                "false" => Ok(Value::Flag(false)),
                _ => Err(format!("`{text}` is neither true nor false")),
            },
            Self::Choice(words) if words.contains(&text) => Ok(Value::Text(text.to_owned())),
            Self::Choice(words) => Err(format!("`{text}` is not one of {}", words.join(", "))),
            Self::Text if text.contains('\0') => Err("it holds a NUL byte".to_owned()),
            Self::Text => Ok(Value::Text(text.to_owned())),
            Self::Argv => Err("write it as a list: the program, then its arguments".to_owned()),
            Self::Shares => Err("write it as a list of percentages".to_owned()),
            Self::Map => Err("write it as a map of texts".to_owned()),
        }
    }

    /// Whether it is a number with or without a unit.
    pub fn is_quantity(self) -> bool {
        matches!(
            self,
            Self::Span
                | Self::Share
                | Self::Rate
                | Self::Bandwidth
                | Self::Size
                | Self::Cores
                | Self::Int { .. }
        )
    }

    /// What it accepts, in a few words.
    pub fn accepts(self) -> String {
        match self {
            Self::Span => "duration such as 250ms".to_owned(),
            Self::Share => "percentage such as 5%".to_owned(),
            Self::Rate => "rate such as 50/s".to_owned(),
            Self::Bandwidth => "bandwidth such as 10mbit or 64KiB/s".to_owned(),
            Self::Size => "size such as 64KiB".to_owned(),
            Self::Cores => "number of cores such as 0.5 or 500m".to_owned(),
            Self::Int { min, max } => format!("whole number from {min} to {max}"),
            Self::Flag => "true or false".to_owned(),
            Self::Choice(words) => words.join(" | "),
            Self::Text => "text".to_owned(),
            Self::Argv => "list of texts, the program first".to_owned(),
            Self::Shares => "list of percentages such as [50%, 0%]".to_owned(),
            Self::Map => "map of texts".to_owned(),
        }
    }
}

/// The checked parameters of one injection, by name. What was left out and has a default is present.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Args(pub BTreeMap<String, Value>);

macro_rules! getter {
    ($(#[$doc:meta])* $name:ident, $variant:ident, $type:ty, $convert:expr) => {
        $(#[$doc])*
        pub fn $name(&self, name: &str) -> Option<$type> {
            match self.0.get(name) {
                Some(Value::$variant(value)) => Some($convert(value)),
                _ => None,
            }
        }
    };
}

impl Args {
    getter!(/// A duration, if written or defaulted.
        span, Span, Duration, |v: &Span| v.0);
    getter!(/// A share from 0 to 1.
        share, Share, f64, |v: &Share| v.0);
    getter!(/// Bytes per second.
        bandwidth, Bandwidth, f64, |v: &Bandwidth| v.0);
    getter!(/// Bytes.
        size, Size, u64, |v: &Size| v.0);
    getter!(/// Events per second.
        rate, Rate, f64, |v: &Rate| v.0);
    getter!(/// Processor cores.
        cores, Cores, f64, |v: &Cores| v.0);
    getter!(/// A whole number.
        int, Int, u64, |v: &u64| *v);
    getter!(/// A flag.
        flag, Flag, bool, |v: &bool| *v);
    getter!(/// A list of shares from 0 to 1.
        shares, Shares, Vec<f64>, |v: &Vec<Share>| v.iter().map(|s| s.0).collect());

    /// A text or a choice.
    pub fn text(&self, name: &str) -> Option<&str> {
        match self.0.get(name) {
            Some(Value::Text(text)) => Some(text),
            _ => None,
        }
    }

    /// A command.
    pub fn argv(&self, name: &str) -> Option<&[String]> {
        match self.0.get(name) {
            Some(Value::Argv(argv)) => Some(argv),
            _ => None,
        }
    }

    /// A map of texts.
    pub fn map(&self, name: &str) -> Option<&BTreeMap<String, String>> {
        match self.0.get(name) {
            Some(Value::Map(map)) => Some(map),
            _ => None,
        }
    }

    /// The parameters as one line, as a user would write them.
    pub fn line(&self) -> String {
        let show = |value: &Value| match value {
            Value::Span(v) => v.to_string(),
            Value::Share(v) => v.to_string(),
            Value::Rate(v) => v.to_string(),
            Value::Bandwidth(v) => v.to_string(),
            Value::Size(v) => v.to_string(),
            Value::Cores(v) => v.to_string(),
            Value::Int(v) => v.to_string(),
            Value::Flag(v) => v.to_string(),
            Value::Text(v) => v.clone(),
            Value::Argv(v) => format!("[{}]", v.join(", ")),
            Value::Shares(v) => {
                format!("[{}]", v.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))
            }
            Value::Map(v) => {
                format!("{{{}}}", v.iter().map(|(k, v)| format!("{k}: {v}")).collect::<Vec<_>>().join(", "))
            }
        };
        self.0.iter().map(|(name, value)| format!("{name} {}", show(value))).collect::<Vec<_>>().join(", ")
    }
}
