//! What our own devices say of themselves, in the text that the kernel keeps with them. Pure.
//!
//! `squall 12 out clsact delay=01J…/1 loss=01K…/2`: it serves what leaves by interface 12, brought that interface's hooks along, and
//! carries the delay of one injection and the loss of another. So every process knows whose is what, and a person sees
//! it in `ip link`.

use std::collections::BTreeMap;
use std::fmt;

use crate::sys::aim::Way;

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
}

impl Label {
    /// A device for nobody yet.
    pub fn new(link: u32, way: Way) -> Self {
        Self { link, way, hooked: false, held: BTreeMap::new() }
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
        write!(f, "{FIRST} {} {way}", self.link)?;
        if self.hooked {
            write!(f, " {HOOKED}")?;
        }
        self.held.iter().try_for_each(|(family, id)| write!(f, " {family}={id}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The longest text that a kernel keeps with a device.
    const LABEL_MAX: usize = 255;

    #[test]
    fn a_label_says_what_it_said_and_a_stranger_s_text_is_none() {
        let id = format!("{}/199", "0".repeat(26));
        let held: BTreeMap<String, String> = ["corrupt", "delay", "duplicate", "loss", "rate"]
            .map(|family| (family.to_owned(), id.clone()))
            .into();
        let full = Label { hooked: true, held, ..Label::new(123_456, Way::Out) };
        assert!(full.to_string().len() <= LABEL_MAX, "{}", full.to_string().len());
        for label in [full, Label::new(3, Way::In)] {
            assert_eq!(Label::read(&label.to_string()), Some(label));
        }
        for stranger in ["", "uplink to fra", "squall", "squall eth0", "squall 3 up"] {
            assert_eq!(Label::read(stranger), None);
        }
    }
}
