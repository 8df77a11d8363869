//! One file per fault; each fault is a unit struct listed in [`crate::registry`].

mod command;
mod connection_reset;
mod contained;
mod container_disconnect;
mod container_kill;
mod container_pause;
mod container_restart;
mod container_stop;
#[cfg(test)]
mod container_tests;
mod containers;
mod cpu_stress;
mod cpu_throttle;
mod cut;
mod disk_fill;
mod dns_fault;
mod fallback;
mod fd_exhaust;
mod grouped;
mod http_abort;
mod http_delay;
mod http_header;
mod http_truncate;
mod io_limit;
mod io_stress;
mod limited;
mod memory_limit;
mod memory_stress;
mod network_corrupt;
mod network_delay;
mod network_duplicate;
mod network_loss;
mod network_partition;
mod network_rate;
mod pop_drain;
mod port_block;
mod process_freeze;
mod process_kill;
mod process_pause;
#[cfg(test)]
mod process_tests;
mod processes;
mod relay_bandwidth;
mod relay_blackhole;
mod relay_latency;
mod relay_limit_data;
mod relay_params;
mod relay_proof;
mod relay_refuse;
mod relay_reset;
mod relay_slice;
mod relay_slow_close;
mod relayed;
mod shape;
mod stressed;

pub use self::shape::interface;
pub use command::Command;
pub use connection_reset::ConnectionReset;
pub use container_disconnect::ContainerDisconnect;
pub use container_kill::ContainerKill;
pub use container_pause::ContainerPause;
pub use container_restart::ContainerRestart;
pub use container_stop::ContainerStop;
pub use cpu_stress::CpuStress;
pub use cpu_throttle::CpuThrottle;
pub use cut::Cut;
pub use cut::loss::Losing;
pub use disk_fill::DiskFill;
pub use dns_fault::DnsFault;
pub use fd_exhaust::FdExhaust;
pub use http_abort::HttpAbort;
pub use http_delay::HttpDelay;
pub use http_header::HttpHeader;
pub use http_truncate::HttpTruncate;
pub use io_limit::IoLimit;
pub use io_stress::IoStress;
pub use limited::Limited;
pub use memory_limit::MemoryLimit;
pub use memory_stress::MemoryStress;
pub use network_corrupt::NetworkCorrupt;
pub use network_delay::NetworkDelay;
pub use network_duplicate::NetworkDuplicate;
pub use network_loss::NetworkLoss;
pub use network_partition::NetworkPartition;
pub use network_rate::NetworkRate;
pub use pop_drain::PopDrain;
pub use port_block::PortBlock;
pub use process_freeze::ProcessFreeze;
pub use process_kill::ProcessKill;
pub use process_pause::ProcessPause;
pub use relay_bandwidth::RelayBandwidth;
pub use relay_blackhole::RelayBlackhole;
pub use relay_latency::RelayLatency;
pub use relay_limit_data::RelayLimitData;
pub use relay_refuse::RelayRefuse;
pub use relay_reset::RelayReset;
pub use relay_slice::RelaySlice;
pub use relay_slow_close::RelaySlowClose;
pub use shape::Shaped;
pub use stressed::Stressed;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::sys::proc::Output;
use crate::{Env, InjectError};

/// Turns an injector's own data into the journal's.
pub(crate) fn record<T: Serialize>(data: &T) -> serde_json::Value {
    serde_json::to_value(data).expect("fault data are plain maps with text keys")
}

/// The error of a command of the user's that has failed: how it ended, and the end of what it printed.
pub(crate) fn failure(argv: &[String], output: &Output) -> InjectError {
    const SAID_MAX: usize = 300;
    let code = output.code.map_or("a signal".to_owned(), |code| format!("code {code}"));
    let lines: Vec<&str> = output.text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let all: Vec<char> = lines.join(" | ").chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    // Whole words only: half a secret would be recognised by nobody who hides secrets.
    let cut = all.len().saturating_sub(SAID_MAX);
    let begin =
        if cut == 0 { Some(0) } else { all[cut..].iter().position(|c| *c == ' ').map(|at| cut + at + 1) };
    let said: String = all[begin.unwrap_or(all.len())..].iter().collect();
    let said = match (said.is_empty(), all.len() > SAID_MAX) {
        (true, _) => String::new(),
        (false, true) => format!(": …{said}"),
        (false, false) => format!(": {said}"),
    };
    InjectError::Command(format!("`{}` ended with {code}{said}", argv.join(" ")))
}

/// Refuses a command whose program is not there, before anything is touched.
pub(crate) fn refuse_missing(env: &Env, param: &str, argv: &[String]) -> Result<(), InjectError> {
    let Some(program) = argv.first() else { return Err(InjectError::Target(format!("{param} is empty"))) };
    if env.procs.has_program(program) {
        return Ok(());
    }
    let words: Vec<&str> = program.split_whitespace().collect();
    let help = match words.len() {
        0 | 1 => String::new(),
        _ => format!("; write one word per list item: [{}]", words.join(", ")),
    };
    Err(InjectError::Target(format!("{param}: no program `{program}`{help}")))
}

/// A command as a person types it into a shell.
pub(crate) fn by_hand(argv: &[String]) -> String {
    argv.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ")
}

/// One word for a shell, whatever it holds.
pub(crate) fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "_-./:=@%+,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// Reads an injector's own data back from the journal's.
pub(crate) fn recall<T: DeserializeOwned>(fault: &str, data: &serde_json::Value) -> Result<T, InjectError> {
    T::deserialize(data).map_err(|source| InjectError::Data { fault: fault.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_shown_as_a_person_types_it() {
        let shown = |argv: &[&str]| by_hand(&argv.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>());
        assert_eq!(shown(&["/usr/sbin/nginx", "-c", "a=b"]), "/usr/sbin/nginx -c a=b");
        assert_eq!(
            shown(&["sh", "-c", "rm -f /x; true", "", "it's", "$HOME", "~"]),
            r"sh -c 'rm -f /x; true' '' 'it'\''s' '$HOME' '~'"
        );
    }

    #[test]
    fn a_program_that_is_not_there_is_refused_and_a_whole_line_explained() {
        let env = Env::host(crate::Inventory::default());
        let refused = |program: &str| {
            refuse_missing(&env, "restart", &[program.to_owned()]).map_err(|error| error.to_string())
        };
        assert_eq!(refused("sh"), Ok(()));
        assert_eq!(refused("/bin/sh"), Ok(()));
        assert_eq!(refused("/no/such/server").unwrap_err(), "restart: no program `/no/such/server`");
        assert_eq!(refused("/etc/passwd").unwrap_err(), "restart: no program `/etc/passwd`");
        assert_eq!(
            refused("python3 srv.py 1").unwrap_err(),
            "restart: no program `python3 srv.py 1`; write one word per list item: [python3, srv.py, 1]"
        );
    }

    #[test]
    fn a_failed_command_is_quoted_with_its_last_words() {
        let said = |text: &str| {
            let output = Output { code: Some(3), text: text.to_owned() };
            failure(&["/usr/sbin/it".to_owned()], &output).to_string()
        };
        assert_eq!(said(""), "`/usr/sbin/it` ended with code 3");
        assert_eq!(
            said("no\u{1b}[m way\n\n port in use\n"),
            "`/usr/sbin/it` ended with code 3: no [m way | port in use"
        );
        let long = said(&format!("{}the end", "é\n".repeat(4000)));
        assert!(long.ends_with("| the end") && long.chars().count() < 350, "{long}");
        let secret = said(&format!("{} word", "s3cr3t-token".repeat(30)));
        assert!(secret.ends_with("code 3: …word"), "half a word could be half a secret: {secret}");
    }
}
