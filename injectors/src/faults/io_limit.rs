//! `io-limit`: a control group gets less of a disk.

use super::limited::{Counts, Evidence, Limit, Limiting, Seen, Setting, before, get};
use super::stressed::bytes;
use crate::about::{About, Args, Effect, Param, ParamKind, Presence};
use crate::change::{InjectError, Proof, ProofStatus};
use crate::sys::cgroup::{Controller, Version, nested};
use crate::target::TargetKind;

/// A control group gets less of a disk.
#[derive(Debug)]
pub struct IoLimit;

const fn bandwidth(name: &'static str, help: &'static str) -> Param {
    Param { name, kind: ParamKind::Bandwidth, presence: Presence::Optional, help }
}

const fn operations(name: &'static str, help: &'static str) -> Param {
    Param { name, kind: ParamKind::Rate, presence: Presence::Optional, help }
}

static ABOUT: About = About {
    name: "io-limit",
    summary: "Limits what a control group reads from and writes to a disk",
    description: "Bytes or operations per second of one block device, found from any `path` on it, are limited for the group \
                  (io.max of cgroup v2, blkio.throttle of v1): a volume of a cheaper class, or a neighbour that takes most of a \
                  disk. At least one of `read`, `write`, `read-ops` and `write-ops` is needed. With cgroup v1 it holds for \
                  direct and synchronous writes only, and for this group alone, not for groups below it: what is written \
                  through the cache goes to the disk on account of nobody. Groups that hold squall, its guardian or its \
                  ancestors are refused, as is the root group. The limit lives in the kernel and has no lease of its own: \
                  if both squall and its guardian are killed, `squall recover` puts it back.",
    target: TargetKind::Group,
    params: &[
        Param {
            name: "path",
            kind: ParamKind::Text,
            presence: Presence::Required,
            help: "a file or folder on the disk that is meant, or its device such as /dev/vda",
        },
        bandwidth("read", "bytes that it may read per second"),
        bandwidth("write", "bytes that it may write per second"),
        operations("read-ops", "reads per second"),
        operations("write-ops", "writes per second"),
    ],
    needs: &["root, or a group that was delegated to this user", "the cgroup controller io, or blkio of v1"],
    effect: Effect::Degradation,
    proof: "What the group moves to and from the disk between two looks: confirmed if one of the limits is used up to at least \
            60%, and none exceeded by more than a half and one operation at each end. Unproven if it never wanted more.",
    undo: "The former limits of the device are written back, where they still are what squall has set.",
    example: "- io-limit: {cgroup: system.slice/mysql.service, path: /var/lib/mysql, write: 2MB/s}",
};

/// A parameter, the names that the two versions have for its limit, and for what they count.
struct Way {
    param: &'static str,
    one: &'static str,
    two: &'static str,
    counted: &'static str,
    /// For bytes, what counts the operations that moved them.
    times: Option<&'static str>,
}

const WAYS: [Way; 4] = [
    Way {
        param: "read",
        one: "blkio.throttle.read_bps_device",
        two: "rbps",
        counted: "rbytes",
        times: Some("rios"),
    },
    Way {
        param: "write",
        one: "blkio.throttle.write_bps_device",
        two: "wbps",
        counted: "wbytes",
        times: Some("wios"),
    },
    Way {
        param: "read-ops",
        one: "blkio.throttle.read_iops_device",
        two: "riops",
        counted: "rios",
        times: None,
    },
    Way {
        param: "write-ops",
        one: "blkio.throttle.write_iops_device",
        two: "wiops",
        counted: "wios",
        times: None,
    },
];

fn wanted(args: &Args, way: &Way) -> Option<u64> {
    let value = args.bandwidth(way.param).or_else(|| args.rate(way.param));
    value.map(|value| value.round() as u64)
}

impl Limiting for IoLimit {
    fn about(&self) -> &'static About {
        &ABOUT
    }

    fn check(&self, args: &Args) -> Result<(), String> {
        let wanted: Vec<u64> = WAYS.iter().filter_map(|way| wanted(args, way)).collect();
        if wanted.is_empty() {
            return Err("say what is limited: `read`, `write`, `read-ops` or `write-ops`".to_owned());
        }
        // Version 1 reads nothing as no limit.
        if wanted.contains(&0) {
            return Err("a limit must be at least one byte or operation per second".to_owned());
        }
        // "requested" is what was asked for: a half of an operation per second is not one.
        let inexact = |way: &&Way| {
            let value = args.bandwidth(way.param).or_else(|| args.rate(way.param)).unwrap_or_default();
            (value - value.round()).abs() > value * 0.01
        };
        if let Some(way) = WAYS.iter().find(inexact) {
            return Err(format!(
                "{}: the kernel takes whole bytes or operations per second only; write a whole number",
                way.param
            ));
        }
        Ok(())
    }

    fn controller(&self) -> Controller {
        Controller::Io
    }

    fn limit(&self, group: &Seen<'_>, args: &Args) -> Result<Limit, InjectError> {
        let path = args.text("path").unwrap_or_default();
        let failed = |source| InjectError::System { what: format!("look at {path}"), source };
        let device = group.env.resources.device(path.as_ref()).map_err(failed)?;
        let device = device.ok_or_else(|| {
            InjectError::Target(format!(
                "{path} is on no block device (a file system in memory, of the network, or an overlay): name a path on the \
                 disk itself"
            ))
        })?;
        let asked: Vec<(&Way, u64)> = WAYS.iter().filter_map(|way| Some((way, wanted(args, way)?))).collect();
        let setting = |file: &str, ours: String| {
            let before = before(group, file, Some(&device), &ours)?;
            Ok::<_, InjectError>(Setting {
                file: file.to_owned(),
                device: Some(device.clone()),
                before,
                ours,
            })
        };
        let settings = match group.place.version {
            Version::Two => {
                let fields: Vec<String> =
                    asked.iter().map(|(way, value)| format!("{}={value}", way.two)).collect();
                vec![setting("io.max", fields.join(" "))?]
            }
            Version::One => asked
                .iter()
                .map(|(way, value)| setting(way.one, value.to_string()))
                .collect::<Result<_, _>>()?,
        };
        let asked = asked.iter().map(|(way, value)| (way.counted.to_owned(), *value)).collect();
        Ok(Limit { place: group.place.clone(), settings, asked })
    }

    fn counts(&self, group: &Seen<'_>, limit: &Limit) -> Result<Counts, InjectError> {
        let device = limit.settings.first().and_then(|one| one.device.clone()).unwrap_or_default();
        Ok(match group.place.version {
            Version::Two => {
                let text = group.read("io.stat")?;
                let fields = nested(&text, &device).unwrap_or_default();
                fields
                    .iter()
                    .filter_map(|(name, value)| Some(((*name).to_owned(), value.parse().ok()?)))
                    .collect()
            }
            Version::One => {
                let (bytes, times) = (
                    group.read("blkio.throttle.io_service_bytes")?,
                    group.read("blkio.throttle.io_serviced")?,
                );
                [
                    ("rbytes".to_owned(), serviced(&bytes, &device, "Read")),
                    ("wbytes".to_owned(), serviced(&bytes, &device, "Write")),
                    ("rios".to_owned(), serviced(&times, &device, "Read")),
                    ("wios".to_owned(), serviced(&times, &device, "Write")),
                ]
                .into()
            }
        })
    }

    fn judge(&self, limit: &Limit, evidence: &Evidence) -> Proof {
        let (mut requested, mut measured) = (Vec::new(), Vec::new());
        let (mut felt, mut beyond) = (false, false);
        for way in &WAYS {
            let most = get(&limit.asked, way.counted);
            if most == 0 {
                continue;
            }
            let now = evidence.rate(way.counted);
            felt |= now >= 0.6 * most as f64;
            // The kernel lets through what has been saved up, in whole operations: one more at each end of so short a look
            // is no excess.
            let one = match way.times {
                Some(times) => now / (evidence.rate(times) * evidence.seconds).max(1.0),
                None => 1.0 / evidence.seconds.max(1e-9),
            };
            beyond |= now > 1.5 * most as f64 + 2.0 * one;
            let shown = |value: u64| {
                if way.counted.ends_with("bytes") {
                    format!("{}/s", bytes(value))
                } else {
                    format!("{value}/s")
                }
            };
            requested.push(format!("{} at most {}", way.param, shown(most)));
            measured.push(format!("{} {}", way.param, shown(now as u64)));
        }
        let (requested, measured) = (requested.join(", "), measured.join(", "));
        if !felt {
            return Proof::unproven(requested, format!("{measured}: it did not want more"));
        }
        Proof {
            status: if beyond { ProofStatus::Mismatch } else { ProofStatus::Confirmed },
            requested,
            measured,
            tolerance: "60 % to 150 %, and one operation at each end".to_owned(),
            samples: 1,
        }
    }
}

/// The number of a device and a way in a file of version 1: `8:0 Write 4096`.
fn serviced(text: &str, device: &str, way: &str) -> u64 {
    let found = text.lines().find_map(|line| line.strip_prefix(device)?.strip_prefix(' ')?.strip_prefix(way));
    found.and_then(|rest| rest.trim().parse().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::cgroup::{Folder, Place};

    #[test]
    fn what_version_1_counts_is_read_by_device_and_way() {
        let text =
            "8:0 Read 4096\n8:0 Write 12288\n8:0 Sync 16384\n8:0 Total 16384\n253:0 Write 7\nTotal 16391\n";
        assert_eq!(serviced(text, "8:0", "Write"), 12288);
        assert_eq!(serviced(text, "253:0", "Read"), 0);
    }

    #[test]
    fn a_limit_is_felt_where_it_is_used_up() {
        let folder = Folder { path: "/g".into(), inode: 1 };
        let asked = [("wbytes".to_owned(), 1_000_000), ("wios".to_owned(), 1000)].into();
        let limit = Limit { place: Place { folder, version: Version::Two }, settings: Vec::new(), asked };
        let judge = |written: u64, writes: u64| {
            let counts = |bytes: u64, times: u64| {
                Counts::from([("wbytes".to_owned(), bytes), ("wios".to_owned(), times)])
            };
            let (first, last) = (counts(5, 5), counts(5 + written, 5 + writes));
            IoLimit.judge(&limit, &Evidence { before: Counts::new(), first, last, seconds: 1.0 })
        };
        assert_eq!(judge(100_000, 10).status, ProofStatus::Unproven);
        assert_eq!(judge(980_000, 10).status, ProofStatus::Confirmed);
        assert_eq!(judge(100_000, 990).status, ProofStatus::Confirmed);
        assert_eq!(judge(980_000, 5000).status, ProofStatus::Mismatch);
        assert_eq!(judge(2_000_000, 500).status, ProofStatus::Mismatch);
        assert_eq!(judge(2_000_000, 1).status, ProofStatus::Confirmed, "one whole write");
    }

    #[test]
    fn a_limit_that_the_kernel_would_round_is_refused() {
        let check =
            |name: &str, value: crate::about::Value| IoLimit.check(&Args([(name.to_owned(), value)].into()));
        let rate = |text: &str| crate::about::ParamKind::Rate.parse(text).unwrap();
        let bandwidth = |text: &str| crate::about::ParamKind::Bandwidth.parse(text).unwrap();
        assert!(check("read-ops", rate("0.6/s")).unwrap_err().contains("whole"));
        assert_eq!(check("read-ops", rate("3/s")), Ok(()));
        assert!(check("write", bandwidth("12bit")).unwrap_err().contains("whole"));
        assert_eq!(check("write", bandwidth("1kbit")), Ok(()));
    }

    #[test]
    fn something_must_be_limited() {
        assert!(IoLimit.check(&Args::default()).unwrap_err().contains("write-ops"));
    }
}
