//! What our own devices say of themselves, in the text that the kernel keeps with them. Pure.
//!
//! `squall 12 out clsact delay=01J…/1 loss=01K…/2`: it serves what leaves by interface 12, brought that interface's hooks along, and
//! carries the delay of one injection and the loss of another. At the end, as far as there is room, `aim=…` says which
//! packets it gets, so that another aim can be told apart. So every process knows whose is what, and a person sees it in
//! `ip link`.

use std::collections::BTreeMap;
use std::fmt;

use crate::sys::aim::{Aim, Way};

/// The longest text that a kernel keeps with a device.
const LABEL_MAX: usize = 255;
const AIM: &str = "aim";
const FIRST: &str = "squall";
const HOOKED: &str = "clsact";

/// What one of our devices is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Label {
    /// The interface whose packets it gets.
    pub link: u32,
    /// The way of those packets.
    pub way: Way,
    /// Whether the hooks of that interface are ours.
    pub hooked: bool,
    /// Whose each kind of fault is.
    pub held: BTreeMap<String, String>,
    /// Which packets it gets, without exemptions; none if there was no room to say it.
    pub aim: Option<Aim>,
}

impl Label {
    /// A device for nobody yet.
    pub fn new(link: u32, way: Way) -> Self {
        Self { link, way, hooked: false, held: BTreeMap::new(), aim: None }
    }

    /// Reads a device's text; none if it is not ours.
    pub fn read(text: &str) -> Option<Self> {
        let mut words = text.split_ascii_whitespace();
        if words.next() != Some(FIRST) {
            return None;
        }
        let link = words.next()?.parse().ok()?;
        let way = match words.next()? {
            "out" => Way::Out,
            "in" => Way::In,
            _ => return None,
        };
        let mut label = Self::new(link, way);
        for word in words {
            match word.split_once('=') {
                Some((AIM, aim)) => label.aim = Aim::read(aim),
                Some((family, id)) => {
                    label.held.insert(family.to_owned(), id.to_owned());
                }
                None => label.hooked |= word == HOOKED,
            }
        }
        Some(label)
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let way = if self.way == Way::Out { "out" } else { "in" };
        let mut text = format!("{FIRST} {} {way}", self.link);
        if self.hooked {
            text += &format!(" {HOOKED}");
        }
        for (family, id) in &self.held {
            text += &format!(" {family}={id}");
        }
        let aim = self.aim.as_ref().map(|aim| format!(" {AIM}={}", aim.short()));
        if let Some(aim) = aim.filter(|aim| text.len() + aim.len() <= LABEL_MAX) {
            text += &aim;
        }
        f.write_str(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_says_what_it_said_and_a_stranger_s_text_is_none() {
        let id = format!("{}/199", "0".repeat(26));
        let held: BTreeMap<String, String> = ["corrupt", "delay", "duplicate", "loss", "rate"]
            .map(|family| (family.to_owned(), id.clone()))
            .into();
        let full = Label { hooked: true, held, ..Label::new(123_456, Way::Out) };
        assert!(full.to_string().len() <= LABEL_MAX, "{}", full.to_string().len());
        let aim = Aim::read("tcp;10.0.0.0/8,2001:db8::1;443,8000-8100;;");
        let crowded = Label { aim: aim.clone(), ..full.clone() };
        assert_eq!(Label::read(&crowded.to_string()), Some(full.clone()), "what does not fit is not said");
        for label in [full, Label::new(3, Way::In), Label { aim, ..Label::new(3, Way::Out) }] {
            assert_eq!(Label::read(&label.to_string()), Some(label));
        }
        for stranger in ["", "uplink to fra", "squall", "squall eth0", "squall 3 up"] {
            assert_eq!(Label::read(stranger), None);
        }
    }
}
