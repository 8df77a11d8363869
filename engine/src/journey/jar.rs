//! The cookies of one user: what a journey needs of RFC 6265, in little memory.
//!
//! Honoured are `Domain` (the asked host must lie within it), `Path`, `Secure` and `Max-Age`; a cookie whose `Max-Age` is
//! zero or less goes. `Expires` in the past, which some use to delete, is not read: an empty value has the same effect.

/// The most cookies of one user; the oldest go first.
const COOKIES_MAX: usize = 32;
/// The longest cookie, name and value, in bytes.
const COOKIE_MAX: usize = 4096;

#[derive(Debug, Clone, PartialEq, Eq)]
struct Cookie {
    name: Box<str>,
    value: Box<str>,
    /// The host, or the domain with a dot before it.
    host: Box<str>,
    path: Box<str>,
    secure: bool,
}

/// See the module.
#[derive(Debug, Clone, Default)]
pub struct Jar(Vec<Cookie>);

impl Jar {
    /// Takes what a `Set-Cookie` header says about an answer from `host` for `path`.
    pub fn set(&mut self, header: &str, host: &str, path: &str) {
        let mut parts = header.split(';').map(str::trim);
        let Some((name, value)) = parts.next().and_then(|pair| pair.split_once('=')) else { return };
        let (name, value) = (name.trim(), value.trim());
        let clean = |text: &str| !text.bytes().any(|byte| byte < 0x20 || byte == 0x7f);
        if name.is_empty() || name.len() + value.len() > COOKIE_MAX || !clean(name) || !clean(value) {
            return;
        }
        let default = path.rfind('/').filter(|at| *at > 0).map_or("/", |at| &path[..at]);
        let mut cookie = Cookie {
            name: name.into(),
            value: value.into(),
            host: host.to_ascii_lowercase().into(),
            path: default.into(),
            secure: false,
        };
        let mut gone = value.is_empty();
        for part in parts {
            let (key, said) = part.split_once('=').unwrap_or((part, ""));
            match key.to_ascii_lowercase().as_str() {
                "domain" => {
                    let domain = format!(".{}", said.trim_start_matches('.').to_ascii_lowercase());
                    if !within(&cookie.host, &domain) {
                        return;
                    }
                    cookie.host = domain.into();
                }
                "path" if said.starts_with('/') => cookie.path = said.into(),
                "secure" => cookie.secure = true,
                "max-age" => gone |= said.parse::<i64>().is_ok_and(|age| age <= 0),
                _ => {}
            }
        }
        let same = |known: &Cookie| {
            (&known.name, &known.host, &known.path) == (&cookie.name, &cookie.host, &cookie.path)
        };
        self.0.retain(|known| !same(known));
        if !gone {
            if self.0.len() >= COOKIES_MAX {
                self.0.remove(0);
            }
            self.0.push(cookie);
        }
    }

    /// The `Cookie` header for a request; none if no cookie belongs to it.
    pub fn header(&self, host: &str, path: &str, secure: bool) -> Option<String> {
        let host = host.to_ascii_lowercase();
        let fits = |cookie: &&Cookie| {
            within(&host, &cookie.host) && below(path, &cookie.path) && (secure || !cookie.secure)
        };
        let pairs: Vec<String> =
            self.0.iter().filter(fits).map(|cookie| format!("{}={}", cookie.name, cookie.value)).collect();
        (!pairs.is_empty()).then(|| pairs.join("; "))
    }
}

/// Whether a host is this one, or lies within a domain that begins with a dot.
fn within(host: &str, of: &str) -> bool {
    of.strip_prefix('.').map_or(host == of, |domain| host == domain || host.ends_with(of))
}

/// Whether a path is this one or below it.
fn below(path: &str, of: &str) -> bool {
    path.strip_prefix(of).is_some_and(|rest| rest.is_empty() || of.ends_with('/') || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookies_go_back_to_where_they_came_from() {
        let mut jar = Jar::default();
        jar.set("id=1; HttpOnly", "a.example", "/shop/cart");
        jar.set("all=2; Path=/; Domain=example", "a.example", "/");
        jar.set("tls=3; Path=/; Secure", "a.example", "/");
        let to = |jar: &Jar, host: &str, path: &str| jar.header(host, path, false);
        assert_eq!(to(&jar, "a.example", "/shop/x").as_deref(), Some("id=1; all=2"));
        assert_eq!(to(&jar, "A.example", "/shopping").as_deref(), Some("all=2"));
        assert_eq!(to(&jar, "b.example", "/shop").as_deref(), Some("all=2"));
        assert_eq!(to(&jar, "other", "/"), None);
        assert_eq!(jar.header("a.example", "/", true).as_deref(), Some("all=2; tls=3"));
        jar.set("id=9", "a.example", "/shop/pay");
        assert_eq!(to(&jar, "a.example", "/shop").as_deref(), Some("all=2; id=9"));
        jar.set("id=; Max-Age=0", "a.example", "/shop/pay");
        jar.set("evil=1; Domain=other", "a.example", "/");
        jar.set("nonsense", "a.example", "/");
        jar.set("split=a\rb", "a.example", "/");
        assert_eq!(to(&jar, "a.example", "/shop").as_deref(), Some("all=2"));
    }

    #[test]
    fn a_jar_is_bounded() {
        let mut jar = Jar::default();
        (0..100).for_each(|i| jar.set(&format!("c{i}=v"), "h", "/"));
        assert_eq!(jar.0.len(), COOKIES_MAX);
        jar.set(&format!("big={}", "x".repeat(COOKIE_MAX)), "h", "/");
        assert!(!jar.header("h", "/", false).unwrap().contains("big"));
        assert!(jar.header("h", "/", false).unwrap().contains("c99=v"));
    }
}
