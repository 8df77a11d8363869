//! Real servers from Debian, on loopback, in a folder of their own; and free ports.

use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use rustix::process::Signal;

use super::{Home, process, skipped, until};

/// How long a server may take to listen or to end.
const PATIENCE: Duration = Duration::from_secs(10);

/// A free port that stays free until its server listens: none that the kernel gives to whoever asks for any, and none
/// that another test of this process was given.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    const FIRST: u16 = 21_000;
    const COUNT: u16 = 10_000;
    // Where two of these processes run at a time, they begin at different places.
    let begin = (std::process::id().wrapping_mul(97) % u32::from(COUNT)) as u16;
    let free = (0..COUNT).find_map(|_| {
        let port = FIRST + (begin + NEXT.fetch_add(1, Ordering::Relaxed) % COUNT) % COUNT;
        TcpListener::bind(("127.0.0.1", port)).ok().map(|_| port)
    });
    free.expect("one of ten thousand ports is free")
}

/// Where Debian puts a program; says that a test is left out if it is not there.
pub(crate) fn program(name: &str) -> Option<PathBuf> {
    let found = ["/usr/sbin", "/usr/bin", "/usr/local/sbin", "/usr/local/bin"]
        .into_iter()
        .map(|folder| Path::new(folder).join(name))
        .find(|path| path.exists());
    if found.is_none() {
        skipped(&format!("{name} is not installed: apt-get install {name}"));
    }
    found
}

/// A running server.
pub(crate) struct Server {
    pub(crate) port: u16,
    /// How it is started, also again.
    pub(crate) argv: Vec<String>,
    pub(crate) pid_file: PathBuf,
}

impl Server {
    /// nginx with two workers that answers `/` with a short text; none if it is not installed.
    pub(crate) fn nginx(home: &Home) -> Option<Self> {
        Self::nginx_with(
            home,
            "access_log off;",
            "location / { default_type text/plain; return 200 'nginx here'; }",
        )
    }

    /// nginx with these settings of `http` and these locations; none if it is not installed.
    pub(crate) fn nginx_with(home: &Home, http: &str, locations: &str) -> Option<Self> {
        let program = program("nginx")?;
        let (dir, port) = (home.dir().display().to_string(), free_port());
        let config = format!(
            "daemon on; pid {dir}/nginx.pid; error_log {dir}/nginx.err; worker_processes 2;\n\
             events {{ worker_connections 256; }}\n\
             http {{ {http} client_body_temp_path {dir}/b; proxy_temp_path {dir}/p; fastcgi_temp_path {dir}/f;\n\
             uwsgi_temp_path {dir}/u; scgi_temp_path {dir}/s;\n\
             server {{ listen 127.0.0.1:{port}; {locations} }} }}\n"
        );
        let config = home.file("nginx.conf", &config);
        let argv = [program.to_str().unwrap(), "-p", &dir, "-c", config.to_str().unwrap()];
        Some(Self::start(home, port, &argv, home.dir().join("nginx.pid")))
    }

    /// HAProxy before another server; none if it is not installed.
    pub(crate) fn haproxy(home: &Home, upstream: u16) -> Option<Self> {
        Self::haproxy_with(home, "haproxy", |port| {
            format!(
                "global\n  maxconn 256\ndefaults\n  mode http\n  timeout connect 1s\n  timeout client 5s\n  timeout server 5s\n\
                 frontend f\n  bind 127.0.0.1:{port}\n  default_backend b\nbackend b\n  server s 127.0.0.1:{upstream}\n"
            )
        })
    }

    /// HAProxy before several servers, which asks each of them five times a second whether it is well; none if it is not
    /// installed.
    pub(crate) fn balancing(home: &Home, upstreams: &[u16]) -> Option<Self> {
        let servers: String =
            upstreams.iter().map(|port| format!("  server s{port} 127.0.0.1:{port}\n")).collect();
        Self::haproxy_with(home, "balancing", |port| {
            format!(
                "defaults\n  mode http\n  timeout connect 200ms\n  timeout client 5s\n  timeout server 1s\n  \
                 timeout check 200ms\n  option redispatch 1\n  retries 2\n  \
                 retry-on conn-failure empty-response response-timeout\n\
                 frontend f\n  bind 127.0.0.1:{port}\n  default_backend b\nbackend b\n  balance roundrobin\n  \
                 option httpchk GET /\n  default-server check inter 200ms fall 2 rise 1\n{servers}"
            )
        })
    }

    fn haproxy_with(home: &Home, name: &str, config: impl FnOnce(u16) -> String) -> Option<Self> {
        let program = program("haproxy")?;
        let (port, pid_file) = (free_port(), home.dir().join(format!("{name}.pid")));
        let config = home.file(&format!("{name}.cfg"), &config(port));
        let argv = [
            program.to_str().unwrap(),
            "-D",
            "-f",
            config.to_str().unwrap(),
            "-p",
            pid_file.to_str().unwrap(),
        ];
        Some(Self::start(home, port, &argv, pid_file.clone()))
    }

    fn start(home: &Home, port: u16, argv: &[&str], pid_file: PathBuf) -> Self {
        let argv: Vec<String> = argv.iter().map(|arg| (*arg).to_owned()).collect();
        // The marker by which the home finds all of its processes.
        let mut command = Command::new(&argv[0]);
        command.args(&argv[1..]).env_clear().env("XDG_RUNTIME_DIR", home.dir());
        let status =
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
        assert!(status.success(), "{argv:?} ended with {status}");
        let server = Self { port, argv, pid_file };
        server.listens();
        server
    }

    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Waits until it accepts connections.
    pub(crate) fn listens(&self) {
        until("a listening server", PATIENCE, || TcpStream::connect(self.address()).is_ok().then_some(()));
    }

    /// Its process, as its pid file tells.
    pub(crate) fn pid(&self) -> u32 {
        until("a pid file", PATIENCE, || std::fs::read_to_string(&self.pid_file).ok()?.trim().parse().ok())
    }

    /// Ends it and waits until nobody listens any more.
    pub(crate) fn end(&self) {
        process::signal(self.pid(), Signal::TERM);
        until("the end of a server", PATIENCE, || TcpStream::connect(self.address()).is_err().then_some(()));
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // After a failure it still runs, or is paused; its workers end with it.
        let pid = std::fs::read_to_string(&self.pid_file).ok().and_then(|text| text.trim().parse().ok());
        // The number must still be that of a server of this test.
        let folder = self.pid_file.parent().unwrap_or(Path::new("/"));
        if let Some(pid) = pid.filter(|pid| process::of_home(folder).contains(pid)) {
            process::signal(pid, Signal::CONT);
            process::signal(pid, Signal::TERM);
        }
    }
}
