//! A control group as its files show it, and how they are written.

use std::time::Duration;

use super::Setting;
use crate::Env;
use crate::change::InjectError;
use crate::sys::cgroup::{Place, Version, flat, nested};

/// How long a kernel that is busy may take, and how often it is asked again.
const PATIENCE: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(20);

/// By which version 1 freezes a group.
pub(crate) const STATE: &str = "freezer.state";

/// A group that is looked at.
#[derive(Debug)]
pub(crate) struct Seen<'a> {
    pub(crate) env: &'a Env,
    pub(crate) place: &'a Place,
}

impl Seen<'_> {
    pub(super) fn failed(
        &self,
        verb: &str,
        file: &str,
    ) -> impl FnOnce(std::io::Error) -> InjectError + use<> {
        let what = format!("{verb} {}", self.place.folder.path.join(file).display());
        move |source| InjectError::System { what, source }
    }

    /// What a file says.
    pub(crate) fn read(&self, file: &str) -> Result<String, InjectError> {
        self.look(file)?.ok_or_else(|| InjectError::Target(format!("{self} has gone")))
    }

    fn look(&self, file: &str) -> Result<Option<String>, InjectError> {
        self.env.cgroups.read(&self.place.folder, file).map_err(self.failed("read", file))
    }

    /// What a file says, or nothing where the kernel has no such file.
    pub(crate) fn read_if_there(&self, file: &str) -> String {
        self.look(file).ok().flatten().unwrap_or_default()
    }

    /// The value of a setting; none if the group has gone.
    pub(super) fn value(
        &self,
        file: &str,
        device: Option<&str>,
        like: &str,
    ) -> Result<Option<String>, InjectError> {
        if file == STATE {
            // The state is that of the groups above as well; what this one was told is ours.
            let told = self.look("freezer.self_freezing")?;
            return Ok(told.map(|told| if told.trim() == "1" { "FROZEN" } else { "THAWED" }.to_owned()));
        }
        let Some(text) = self.look(file)? else { return Ok(None) };
        Ok(Some(match device {
            Some(device) => device_value(&text, device, like),
            None => text.trim().to_owned(),
        }))
    }

    /// Processor time of all that is in the group, in microseconds.
    pub(crate) fn cpu_us(&self) -> Result<u64, InjectError> {
        if let Some(used) = flat(&self.read_if_there("cpu.stat"), "usage_usec") {
            return Ok(used);
        }
        if let Ok(used) = self.read_if_there("cpuacct.usage").trim().parse::<u64>() {
            return Ok(used / 1000);
        }
        Ok(self.env.resources.cpu_time(&self.processes()?).as_micros() as u64)
    }

    /// The processes in the group and below.
    pub(crate) fn processes(&self) -> Result<Vec<u32>, InjectError> {
        let listed = self.env.cgroups.processes(&self.place.folder);
        listed.map_err(self.failed("read", "cgroup.procs"))
    }
}

impl std::fmt::Display for Seen<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the control group {}", self.place.folder.path.display())
    }
}

/// The value of a device: the rest of its line in version 1, the fields that `like` names in version 2.
pub(super) fn device_value(text: &str, device: &str, like: &str) -> String {
    if !like.contains('=') {
        let line = text.lines().find_map(|line| line.strip_prefix(device)?.strip_prefix(' '));
        return line.map_or("0", str::trim).to_owned();
    }
    let fields = nested(text, device).unwrap_or_default();
    let value = |name: &str| {
        let found = fields.iter().find(|(known, _)| *known == name);
        format!("{name}={}", found.map_or("max", |(_, value)| value))
    };
    let names = like.split(' ').filter_map(|field| Some(field.split_once('=')?.0));
    names.map(value).collect::<Vec<_>>().join(" ")
}

/// The value of a setting before anything is changed, where the group must have it.
pub(crate) fn before(
    seen: &Seen<'_>,
    file: &str,
    device: Option<&str>,
    like: &str,
) -> Result<String, InjectError> {
    match seen.value(file, device, like) {
        Ok(Some(value)) => Ok(value),
        Ok(None) => Err(InjectError::Target(format!("{seen} has gone"))),
        Err(InjectError::System { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            let controller = file.split('.').next().unwrap_or_default();
            let parent = seen.place.folder.path.parent().unwrap_or(&seen.place.folder.path);
            Err(InjectError::Lack(match seen.place.version {
                Version::Two => format!(
                    "{seen} has no {file}: the controller {controller} is not enabled for it; enable it: echo \
                     +{controller} > {}/cgroup.subtree_control",
                    parent.display()
                ),
                Version::One => format!("{seen} has no {file}: this kernel was built without it"),
            }))
        }
        Err(error) => Err(error),
    }
}

/// Writes a setting; a kernel that is busy taking memory back is given time. Tells whether the group is there.
pub(super) async fn write(seen: &Seen<'_>, one: &Setting, value: &str) -> Result<bool, InjectError> {
    let text = line(one.device.as_deref(), value);
    let mut left = PATIENCE.as_millis() / PAUSE.as_millis();
    let written = loop {
        match seen.env.cgroups.write(&seen.place.folder, &one.file, &text) {
            Err(busy) if busy.kind() == std::io::ErrorKind::ResourceBusy && left > 0 => {
                left -= 1;
                tokio::time::sleep(PAUSE).await;
            }
            other => break other,
        }
    };
    written.map_err(|source| {
        let hint = match source.kind() {
            std::io::ErrorKind::InvalidInput => {
                " (a group below it may have more of its own, or one above it less)"
            }
            std::io::ErrorKind::ResourceBusy => " (the kernel could not take back as much as that)",
            _ => "",
        };
        seen.failed(&format!("write {text}{hint} into"), &one.file)(source)
    })
}

/// What is written for a device, or for the group as a whole.
pub(super) fn line(device: Option<&str>, value: &str) -> String {
    device.map_or_else(|| value.to_owned(), |device| format!("{device} {value}"))
}
