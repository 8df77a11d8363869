//! A Docker engine of our own for all tests of this process, and containers on it. `dockerd` beside this file starts it
//! and takes it away again when this process ends, however it does.

use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use serde_json::Value;

use super::client::get;
use super::home::Going;
use super::{Done, Home, quick, root, skipped, until};

/// How long the engine may take until it answers.
const START: Duration = Duration::from_secs(20);
/// The network of the containers.
pub(crate) const NETWORK: &str = "sqnet";
/// The image: busybox, with one page.
pub(crate) const IMAGE: &str = "sqbox:1";

/// A running engine.
pub(crate) struct Dockerd {
    dir: PathBuf,
    space: String,
    keeper: Mutex<(Child, Option<ChildStdin>)>,
}

/// A container, removed when this is dropped.
pub(crate) struct Container<'d> {
    docker: &'d Dockerd,
    pub(crate) id: String,
}

fn output(command: &mut Command) -> Result<String, String> {
    let done = command.output().map_err(|error| error.to_string())?;
    if !done.status.success() {
        return Err(String::from_utf8_lossy(&done.stderr).trim().to_owned());
    }
    Ok(String::from_utf8_lossy(&done.stdout).trim().to_owned())
}

impl Dockerd {
    /// The engine that all tests of this process share; none, and why, on a host that cannot have one.
    pub(crate) fn shared(what: &str) -> Option<&'static Self> {
        static ENGINE: OnceLock<Result<Dockerd, String>> = OnceLock::new();
        if quick(what) {
            return None;
        }
        match ENGINE.get_or_init(|| Self::start("s")) {
            Ok(engine) => Some(engine),
            Err(why) => {
                skipped(&format!("{what}: no Docker engine: {why}"));
                None
            }
        }
    }

    /// One that a test may kill.
    pub(crate) fn own(what: &str) -> Option<Self> {
        // Where there is no shared one, there is none of one's own.
        Self::shared(what)?;
        Some(Self::start("o").unwrap())
    }

    fn start(mark: &str) -> Result<Self, String> {
        for program in ["dockerd", "docker", "busybox", "unshare", "nsenter", "ip"] {
            let there = |folder: &str| Path::new(folder).join(program).exists();
            if !["/usr/sbin", "/usr/bin", "/sbin", "/bin", "/usr/local/bin"].into_iter().any(there) {
                return Err(format!(
                    "{program} is not installed (apt-get install docker.io busybox-static iproute2)"
                ));
            }
        }
        let dir = tempfile::Builder::new().prefix("sqd-").tempdir_in("/tmp").unwrap().keep();
        let space = format!("sqd-{}{mark}", std::process::id());
        let mut keeper = Command::new(root().join("tests/e2e/support/dockerd"));
        keeper.arg(&dir).arg(&space).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        keeper.env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        // Out of the reach of ^C: it has to tidy up.
        std::os::unix::process::CommandExt::process_group(&mut keeper, 0);
        let mut keeper = keeper.spawn().map_err(|error| error.to_string())?;
        let input = keeper.stdin.take();
        let engine = Self { dir, space, keeper: Mutex::new((keeper, input)) };
        engine.answers()?;
        engine.furnish()?;
        Ok(engine)
    }

    fn answers(&self) -> Result<(), String> {
        let began = std::time::Instant::now();
        while output(self.client().args(["version", "--format", "{{.Server.Version}}"])).is_err() {
            if began.elapsed() > START {
                let log = std::fs::read_to_string(self.dir.join("log")).unwrap_or_default();
                return Err(format!("dockerd does not start: {}", log.lines().last().unwrap_or("no word")));
            }
            super::wait::pass(Duration::from_millis(20));
        }
        Ok(())
    }

    /// The image and the network.
    fn furnish(&self) -> Result<(), String> {
        let image = self.dir.join("image");
        std::fs::create_dir_all(image.join("bin")).unwrap();
        std::fs::create_dir_all(image.join("www")).unwrap();
        std::fs::copy("/bin/busybox", image.join("bin/busybox")).map_err(|error| error.to_string())?;
        for applet in ["sh", "sleep", "httpd", "nc"] {
            std::os::unix::fs::symlink("busybox", image.join("bin").join(applet)).unwrap();
        }
        std::fs::write(image.join("www/index.html"), "box here").unwrap();
        std::fs::write(image.join("www/large"), vec![b'x'; 200_000]).unwrap();
        std::fs::set_permissions(&image, std::fs::Permissions::from_mode(0o755)).unwrap();
        let tar = self.dir.join("image.tar");
        output(Command::new("tar").arg("-C").arg(&image).arg("-cf").arg(&tar).arg("."))?;
        output(self.client().arg("import").arg(&tar).arg(IMAGE))?;
        output(self.client().args(["network", "create", "--subnet", "10.88.0.0/24", NETWORK]))?;
        Ok(())
    }

    /// The value of DOCKER_HOST.
    pub(crate) fn host(&self) -> String {
        format!("unix://{}", self.dir.join("docker.sock").display())
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.join("docker.sock")
    }

    fn client(&self) -> Command {
        let mut client = Command::new("docker");
        client.env("DOCKER_HOST", self.host()).env("DOCKER_CONFIG", &self.dir).stdin(Stdio::null());
        client
    }

    /// `docker` with these words.
    #[track_caller]
    pub(crate) fn docker(&self, words: &[&str]) -> String {
        output(self.client().args(words)).unwrap_or_else(|error| panic!("docker {words:?}: {error}"))
    }

    /// A container that serves one page on port 80, with these options of `docker run`.
    #[track_caller]
    pub(crate) fn serving(&self, name: &str, options: &[&str]) -> Container<'_> {
        self.run(name, options, &["httpd", "-f", "-p", "80", "-h", "/www"])
    }

    /// A container.
    #[track_caller]
    pub(crate) fn run(&self, name: &str, options: &[&str], command: &[&str]) -> Container<'_> {
        let own = ["run", "-d", "--name", name, "--stop-timeout", "1"];
        let network = if options.contains(&"--network") { vec![] } else { vec!["--network", NETWORK] };
        let id = self.docker(&[&own[..], &network, options, &[IMAGE], command].concat());
        Container { docker: self, id }
    }

    /// Does something in the network namespace of the engine, where containers can be reached.
    pub(crate) fn inside<T: Send>(&self, act: impl FnOnce() -> T + Send) -> T {
        within(&format!("/run/netns/{}", self.space), act)
    }

    /// Several containers again after all of them were down: started in this order, each gets the lowest free address.
    pub(crate) fn start_anew(&self, order: &[&Container<'_>]) {
        let ids: Vec<&str> = order.iter().map(|container| container.id.as_str()).collect();
        self.docker(&[&["stop", "-t", "0"][..], &ids].concat());
        for id in ids {
            self.docker(&["start", id]);
        }
    }

    /// The binary, started where containers can be reached, and told where the engine listens.
    pub(crate) fn begin(&self, home: &Home, args: &[&str]) -> Going {
        let mut command = home.command();
        command.args(args).env("DOCKER_HOST", self.host());
        self.inside(|| home.start_as(command))
    }

    /// The same, to its end.
    pub(crate) fn squall(&self, home: &Home, args: &[&str]) -> Done {
        self.begin(home, args).end()
    }

    /// Whether somebody serves at an address in the network of the containers.
    pub(crate) fn serves(&self, address: &str) -> bool {
        let address = format!("{address}:80");
        self.inside(|| get(&address, "/index.html", Duration::from_millis(300)))
            .is_ok_and(|(status, body)| status == 200 && body == "box here")
    }

    /// How long the large page of an address takes, at most five seconds.
    pub(crate) fn large(&self, address: &str) -> Duration {
        let (address, began) = (format!("{address}:80"), std::time::Instant::now());
        // Whatever becomes of it: a restart may break it off.
        let _ = self.inside(|| get(&address, "/large", Duration::from_secs(5)));
        began.elapsed()
    }

    /// Kills the engine; its containers run on.
    pub(crate) fn kill(&self) {
        let pid: i32 = std::fs::read_to_string(self.dir.join("pid")).unwrap().trim().parse().unwrap();
        super::process::signal(pid as u32, rustix::process::Signal::KILL);
        until("the end of the engine", Duration::from_secs(5), || {
            std::os::unix::net::UnixStream::connect(self.socket()).is_err().then_some(())
        });
    }

    /// Starts it again.
    pub(crate) fn restart(&self) {
        use std::io::Write;
        self.keeper.lock().unwrap().1.as_mut().unwrap().write_all(b"restart\n").unwrap();
        self.answers().unwrap();
    }
}

impl Drop for Dockerd {
    fn drop(&mut self) {
        // Only one that a test had for itself is dropped; the shared one ends with this process.
        let mut keeper = self.keeper.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        drop(keeper.1.take());
        let _ = keeper.0.wait();
    }
}

/// Does something in the network namespace of this file, on a thread that ends with it.
fn within<T: Send>(file: &str, act: impl FnOnce() -> T + Send) -> T {
    let file = std::fs::File::open(file).unwrap();
    let enter = move || {
        rustix::thread::move_into_link_name_space(file.as_fd(), None).unwrap();
        act()
    };
    std::thread::scope(|scope| scope.spawn(enter).join())
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

impl Container<'_> {
    /// Does something in its network namespace.
    pub(crate) fn inside<T: Send>(&self, act: impl FnOnce() -> T + Send) -> T {
        within(&format!("/proc/{}/ns/net", self.pid()), act)
    }

    /// What a program in it says, however it ends.
    pub(crate) fn says(&self, words: &[&str]) -> String {
        let told = self.docker.client().arg("exec").arg(&self.id).args(words).output().unwrap();
        String::from_utf8_lossy(&[told.stdout, told.stderr].concat()).into_owned()
    }

    pub(crate) fn inspect(&self) -> Value {
        let text = self.docker.docker(&["inspect", &self.id]);
        serde_json::from_str::<Value>(&text).unwrap()[0].take()
    }

    pub(crate) fn name(&self) -> String {
        self.inspect()["Name"].as_str().unwrap().trim_start_matches('/').to_owned()
    }

    /// Its main process.
    pub(crate) fn pid(&self) -> u32 {
        self.inspect()["State"]["Pid"].as_u64().unwrap() as u32
    }

    /// What shaping could leave in its network namespace.
    pub(crate) fn network(&self) -> String {
        let pid = self.pid().to_string();
        let inside =
            |args: &[&str]| output(Command::new("nsenter").args(["-n", "-t", &pid]).args(args)).unwrap();
        inside(&["tc", "qdisc", "show"])
            + &inside(&["ip", "-o", "link"])
            + &inside(&["nft", "list", "ruleset"])
    }

    pub(crate) fn status(&self) -> String {
        self.inspect()["State"]["Status"].as_str().unwrap().to_owned()
    }

    /// Its address in the network of the containers, or else in the one that it has; empty if it has none.
    pub(crate) fn address(&self) -> String {
        let networks = self.inspect()["NetworkSettings"]["Networks"].take();
        let own = networks.get(NETWORK).or_else(|| networks.as_object()?.values().next());
        own.and_then(|end| end["IPAddress"].as_str()).unwrap_or_default().to_owned()
    }

    /// All that a fault could leave behind.
    pub(crate) fn picture(&self) -> Value {
        let all = self.inspect();
        let end = &all["NetworkSettings"]["Networks"];
        let mut networks = end.clone();
        for end in networks.as_object_mut().unwrap().values_mut() {
            let asked = end["IPAMConfig"]["IPv4Address"].is_string();
            // What the engine chooses anew: numbers, and an address that nobody has asked for.
            let chosen = ["EndpointID", "MacAddress", "DriverOpts"];
            let own = |key: &str| !chosen.contains(&key) && (asked || key != "IPAddress");
            end.as_object_mut().unwrap().retain(|key, _| own(key));
        }
        serde_json::json!({
            "id": all["Id"], "status": all["State"]["Status"], "networks": networks,
            "policy": all["HostConfig"]["RestartPolicy"], "serves": self.docker.serves(&self.address()),
        })
    }
}

impl Drop for Container<'_> {
    fn drop(&mut self) {
        // The test may have removed it, or the engine may be gone.
        let _ = output(self.docker.client().args(["rm", "-f", &self.id]));
    }
}
