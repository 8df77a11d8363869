//! The combined (and the common) log format: `host - user [time] "request" status …`.

use super::{BODY, Entry, NO_TIME, NOT_READ, Reader, time};

/// Reads the lines of a log.
pub(super) fn read(bytes: &[u8], reader: &mut Reader<'_>) -> Result<(), String> {
    for (at, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
        let line = String::from_utf8_lossy(line);
        if line.trim().is_empty() {
            continue;
        }
        one(line.trim(), at + 1, reader)?;
    }
    Ok(())
}

fn one(line: &str, number: usize, reader: &mut Reader<'_>) -> Result<(), String> {
    let Some((time, request)) = parts(line) else {
        reader.leave_out(NOT_READ, number);
        return Ok(());
    };
    let Some((method, target)) = request_line(&request) else {
        reader.leave_out(NOT_READ, number);
        return Ok(());
    };
    let Some(at) = time::common(time) else {
        reader.leave_out(NO_TIME, number);
        return Ok(());
    };
    if reader.options.methods.iter().any(|m| m == method) && ["POST", "PUT", "PATCH"].contains(&method) {
        reader.leave_out(BODY, number);
        return Ok(());
    }
    reader.take(&Entry { at, method, target, ..Entry::default() }, number)
}

/// The time and the request of a line.
fn parts(line: &str) -> Option<(&str, String)> {
    // A user's name may hold anything, but a time is followed by `] "`.
    let end = line.find("] \"")?;
    let begin = line[..end].rfind('[')?;
    Some((&line[begin + 1..end], unescaped(&line[end + 3..])?))
}

/// Up to the closing quote; `\x22` (nginx) and `\"` (Apache) are characters of it.
fn unescaped(text: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    loop {
        match rest {
            [b'"', ..] => return Some(String::from_utf8_lossy(&bytes).into_owned()),
            [b'\\', b'x', high, low, after @ ..] => {
                let digits = [*high, *low];
                let digits = std::str::from_utf8(&digits).ok()?;
                bytes.push(u8::from_str_radix(digits, 16).ok()?);
                rest = after;
            }
            [b'\\', escaped, after @ ..] => {
                bytes.push(*escaped);
                rest = after;
            }
            [byte, after @ ..] => {
                bytes.push(*byte);
                rest = after;
            }
            [] => return None,
        }
    }
}

/// `GET /path HTTP/1.1`; the version may be missing (HTTP/0.9).
pub(super) fn request_line(request: &str) -> Option<(&str, &str)> {
    let (method, rest) = request.split_once(' ')?;
    let target = rest.rsplit_once(" HTTP/").map_or(rest, |(target, _)| target);
    let word = !method.is_empty() && method.bytes().all(|byte| byte.is_ascii_uppercase());
    (word && !target.is_empty()).then_some((method, target))
}
