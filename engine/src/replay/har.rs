//! HTTP archives (HAR 1.2). Only what is needed is read; headers, cookies and answers are passed over.

use serde::Deserialize;

use super::{BODY, Entry, HOST, NO_TIME, Reader, TARGET, time};

#[derive(Deserialize)]
struct Har {
    log: Log,
}

#[derive(Deserialize)]
struct Log {
    entries: Vec<HarEntry>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct HarEntry {
    started_date_time: String,
    request: Request,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Request {
    method: String,
    url: String,
    post_data: Option<PostData>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PostData {
    #[serde(default)]
    mime_type: String,
    text: Option<String>,
}

/// Reads an archive.
pub(super) fn read(bytes: &[u8], reader: &mut Reader<'_>) -> Result<(), String> {
    // A mark that some programs put first.
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let har: Har = serde_json::from_slice(bytes)
        .map_err(|error| format!("it is no HAR: see line {}, column {}", error.line(), error.column()))?;
    let mut first: Option<String> = None;
    for HarEntry { started_date_time, request } in &har.log.entries {
        let Some(authority) = authority(&request.url) else {
            reader.leave_out(TARGET, 0);
            continue;
        };
        if first.get_or_insert_with(|| authority.to_owned()) != authority {
            reader.leave_out(HOST, 0);
            continue;
        }
        let Some(at) = time::iso(started_date_time) else {
            reader.leave_out(NO_TIME, 0);
            continue;
        };
        let (content_type, body) = match &request.post_data {
            Some(PostData { mime_type, text: Some(text) }) => (mime_type.as_str(), text.as_bytes()),
            Some(PostData { text: None, .. }) if reader.options.methods.contains(&request.method) => {
                reader.leave_out(BODY, 0);
                continue;
            }
            _ => ("", &[][..]),
        };
        let entry = Entry { at, method: &request.method, target: &request.url, content_type, body };
        reader.take(&entry, 0)?;
    }
    Ok(())
}

fn authority(url: &str) -> Option<&str> {
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"))?;
    rest.split(['/', '?', '#']).next()
}
