//! A small HTTP server that says what a test wants, and keeps nothing: its connections end with the test.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

/// A request.
#[derive(Debug, Clone, Default)]
pub(crate) struct Asked {
    pub(crate) method: String,
    pub(crate) target: String,
    headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Asked {
    /// A header by its name in small letters; empty if it is not there.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value)
    }
}

/// Status with reason, further header lines (each with its end), body; `x-pause-ms` parts head and body. None: no answer ever, on an open connection.
pub(crate) type Told = Option<(&'static str, String, String)>;

/// Answers on a free port of loopback.
pub(crate) fn clerk(answer: impl Fn(&Asked) -> Told + Send + Sync + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (port, answer) = (listener.local_addr().unwrap().port(), Arc::new(answer));
    std::thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            let answer = Arc::clone(&answer);
            std::thread::spawn(move || serve(&socket, &*answer));
        }
    });
    port
}

#[expect(clippy::disallowed_methods, reason = "a plain thread that answers late on purpose")]
fn serve(socket: &TcpStream, answer: &dyn Fn(&Asked) -> Told) {
    socket.set_nodelay(true).unwrap();
    let (mut reader, mut writer) = (BufReader::new(socket), socket);
    while let Some(asked) = next(&mut reader) {
        let Some((status, headers, body)) = answer(&asked) else {
            // Until the other side hangs up.
            let _ = reader.read(&mut [0]);
            return;
        };
        let head = format!("HTTP/1.1 {status}\r\n{headers}content-length: {}\r\n\r\n", body.len());
        let pause = Duration::from_millis(value(&headers, "x-pause-ms"));
        let written = if pause.is_zero() {
            writer.write_all((head + &body).as_bytes())
        } else {
            writer.write_all(head.as_bytes()).and_then(|()| {
                std::thread::sleep(pause);
                writer.write_all(body.as_bytes())
            })
        };
        if written.is_err() {
            return;
        }
    }
}

/// A number among header lines; 0 if it is not there.
fn value(headers: &str, name: &str) -> u64 {
    let mut values =
        headers.lines().filter_map(|line| line.split_once(": ")).filter(|(known, _)| *known == name);
    values.next_back().map_or(0, |(_, value)| value.trim().parse().unwrap())
}

/// The next request; none if the other side has gone.
fn next(reader: &mut BufReader<&TcpStream>) -> Option<Asked> {
    let mut line = || {
        let mut line = String::new();
        (reader.read_line(&mut line).unwrap_or(0) > 0).then(|| line.trim_end().to_owned())
    };
    let first = line()?;
    let mut words = first.split(' ').map(str::to_owned);
    let mut asked = Asked { method: words.next()?, target: words.next()?, ..Asked::default() };
    loop {
        let field = line()?;
        let Some((name, value)) = field.split_once(':') else { break };
        asked.headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let mut body = vec![0; asked.header("content-length").parse().unwrap_or(0)];
    reader.read_exact(&mut body).ok()?;
    asked.body = String::from_utf8(body).unwrap();
    Some(asked)
}
