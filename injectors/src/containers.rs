//! Containers as a target: which ones are meant. Pure; they are looked up when a run prepares.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::about::Param;
use crate::pick::Pick;

/// Containers of one engine.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Containers {
    /// Which ones are meant.
    pub which: Which,
    /// How many of them are hit; none if there must be just one.
    pub pick: Option<Pick>,
}

/// What containers are known by.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Which {
    /// A name or an id: one container.
    Named(String),
    /// A label, `key=value` or `key`.
    Labelled(String),
    /// An image, with or without its tag.
    Image(String),
}

/// The parameters that say which containers are meant.
pub const SELECTORS: &[Param] = &[
    Param::text("container", "one container by its name or id"),
    Param::text("label", "running containers with this label: key=value or key; goes with pick"),
    Param::text("image", "running containers of this image, with or without its tag; goes with pick"),
    Param::text(
        "pick",
        "how many of them: one, all, a number or a percentage; required if there are several",
    ),
];

/// The parameter that is wrong, if it is one, and what is wrong with it.
type Mistake = (Option<&'static str>, String);

impl Containers {
    /// Reads the parameters of [`SELECTORS`]; none if none of them is there.
    ///
    /// # Errors
    /// The first mistake.
    pub fn read(given: &BTreeMap<&'static str, String>) -> Result<Option<Self>, Mistake> {
        let written =
            ["container", "label", "image"].into_iter().filter_map(|name| Some((name, given.get(name)?)));
        let (name, text) = match written.collect::<Vec<_>>().as_slice() {
            [(name, text)] => (*name, (*text).clone()),
            [] if given.contains_key("pick") => {
                return Err((Some("pick"), "`pick` goes with `label` or `image`".to_owned()));
            }
            [] => return Ok(None),
            [(first, _), (second, _), ..] => {
                return Err((Some(second), format!("write either {first} or {second}")));
            }
        };
        if text.is_empty()
            || text.chars().any(|c| c.is_control() || c.is_whitespace())
            || text.starts_with('=')
        {
            return Err((Some(name), format!("`{text}` is no {name}", text = text.escape_debug())));
        }
        // A name becomes a part of the address at which the engine is asked.
        let named = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
        if name == "container"
            && !(text.chars().all(named) && text.starts_with(|c: char| c.is_ascii_alphanumeric()))
        {
            return Err((Some(name), "a container is named by letters, digits, `_`, `.` and `-`".to_owned()));
        }
        let pick = given.get("pick").map(|text| text.parse::<Pick>()).transpose();
        let pick = pick.map_err(|error| (Some("pick"), format!("pick: {error}")))?;
        if name == "container" && pick.is_some() {
            return Err((Some("pick"), "a container has a name of its own: leave out `pick`".to_owned()));
        }
        let which = match name {
            "container" => Which::Named(text),
            "label" => Which::Labelled(text),
            _ => Which::Image(text),
        };
        Ok(Some(Self { which, pick }))
    }
}

impl Which {
    /// Whether a running container is one of those that are meant. Names are not compared here: the engine knows them.
    pub(crate) fn means(&self, image: &str, labels: &BTreeMap<String, String>) -> bool {
        match self {
            Self::Named(_) => false,
            Self::Labelled(label) => match label.split_once('=') {
                Some((key, value)) => labels.get(key).is_some_and(|own| own == value),
                None => labels.contains_key(label),
            },
            Self::Image(name) => {
                let bare = |image: &str| {
                    let image = image.strip_prefix("docker.io/").unwrap_or(image);
                    image.strip_prefix("library/").unwrap_or(image).to_owned()
                };
                let (own, name) = (bare(image), bare(name));
                let rest = own.strip_prefix(&name);
                rest.is_some_and(|rest| rest.is_empty() || rest.starts_with([':', '@']))
            }
        }
    }
}

impl fmt::Display for Which {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named(name) => write!(f, "container {name}"),
            Self::Labelled(label) => write!(f, "containers with label {label}"),
            Self::Image(image) => write!(f, "containers of image {image}"),
        }
    }
}

impl fmt::Display for Containers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.pick {
            None => self.which.fmt(f),
            Some(Pick::All) => write!(f, "all {}", self.which),
            Some(pick) => write!(f, "{pick} of the {}", self.which),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(given: &[(&'static str, &str)]) -> Result<Option<Containers>, Mistake> {
        Containers::read(&given.iter().map(|(name, text)| (*name, (*text).to_owned())).collect())
    }

    #[test]
    fn containers_are_named_as_they_are_written() {
        let shown = |given: &[(&'static str, &str)]| read(given).unwrap().unwrap().to_string();
        assert_eq!(shown(&[("container", "web-1")]), "container web-1");
        assert_eq!(
            shown(&[("label", "app=web"), ("pick", "one")]),
            "one of the containers with label app=web"
        );
        assert_eq!(
            shown(&[("image", "nginx:1.25"), ("pick", "50%")]),
            "50% of the containers of image nginx:1.25"
        );
        assert_eq!(shown(&[("label", "app=web"), ("pick", "all")]), "all containers with label app=web");
        assert_eq!(read(&[]), Ok(None));
    }

    #[test]
    fn what_cannot_be_a_choice_is_refused_by_the_name_of_its_parameter() {
        let wrong = |given: &[(&'static str, &str)]| read(given).unwrap_err().0;
        assert_eq!(wrong(&[("pick", "one")]), Some("pick"));
        assert_eq!(wrong(&[("container", "web"), ("pick", "one")]), Some("pick"));
        assert_eq!(wrong(&[("container", "web"), ("label", "a=b")]), Some("label"));
        assert_eq!(wrong(&[("container", "../images")]), Some("container"));
        assert_eq!(wrong(&[("container", "")]), Some("container"));
        assert_eq!(wrong(&[("label", "=x")]), Some("label"));
        assert_eq!(wrong(&[("label", "a=b"), ("pick", "0")]), Some("pick"));
    }

    #[test]
    fn an_image_is_meant_with_any_tag_but_never_a_longer_name() {
        let means = |name: &str, image: &str| Which::Image(name.to_owned()).means(image, &BTreeMap::new());
        assert!(means("nginx", "nginx:1.25") && means("nginx:1.25", "docker.io/library/nginx:1.25"));
        assert!(means("nginx", "nginx@sha256:1234"));
        assert!(
            !means("nginx", "nginx-exporter:1")
                && !means("nginx:1", "nginx:1.25")
                && !means("nginx", "me/nginx")
        );
        let labels = BTreeMap::from([("app".to_owned(), "web".to_owned())]);
        let means = |label: &str| Which::Labelled(label.to_owned()).means("", &labels);
        assert!(means("app=web") && means("app") && !means("app=we") && !means("web"));
    }
}
