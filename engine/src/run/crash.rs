//! A seam for the conformance suite: die or fail on purpose at a step of an injection.
//!
//! The hidden option `--crash-at STEP:HOW` makes squall prove its first promise to anybody who wants to see it. It can
//! only hurt the run itself: whatever it leaves, the guardian or `squall recover` must put back.

use std::str::FromStr;

use injectors::sys::host::kill_own;

/// A step in the life of an injection, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CrashStep {
    /// Prepared; nothing is written.
    Prepared,
    /// The journal holds the intent.
    Intended,
    /// The guardian holds the change.
    Held,
    /// The world is changed; the journal does not know.
    Applied,
    /// The journal knows.
    Journalled,
    /// About to undo.
    Undoing,
    /// Undone; the journal does not know.
    Undone,
    /// The journal knows; the guardian does not.
    Settled,
}

/// What happens there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CrashHow {
    /// The step reports an error.
    Error,
    /// The engine is killed.
    Kill,
    /// The guardian is killed.
    KillGuardian,
    /// First the guardian, then the engine is killed.
    KillBoth,
}

/// Where and how to crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CrashPoint {
    /// Where.
    pub step: CrashStep,
    /// How.
    pub how: CrashHow,
}

/// The steps by name.
pub const STEPS: &[(&str, CrashStep)] = &[
    ("prepared", CrashStep::Prepared),
    ("intended", CrashStep::Intended),
    ("held", CrashStep::Held),
    ("applied", CrashStep::Applied),
    ("journalled", CrashStep::Journalled),
    ("undoing", CrashStep::Undoing),
    ("undone", CrashStep::Undone),
    ("settled", CrashStep::Settled),
];

impl FromStr for CrashPoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (step, how) = text.split_once(':').ok_or("write it as STEP:HOW")?;
        let step = STEPS.iter().find(|(name, _)| *name == step).map(|(_, step)| *step);
        let how = match how {
            "error" => Some(CrashHow::Error),
            "kill" => Some(CrashHow::Kill),
            "kill-guardian" => Some(CrashHow::KillGuardian),
            "kill-both" => Some(CrashHow::KillBoth),
            _ => None,
        };
        step.zip(how)
            .map(|(step, how)| Self { step, how })
            .ok_or_else(|| format!("unknown crash point `{text}`"))
    }
}

impl CrashPoint {
    /// Crashes if this is the step.
    ///
    /// # Errors
    /// The error that the point asks for.
    pub fn reach(self, step: CrashStep, guardian: Option<u32>) -> Result<(), String> {
        if self.step != step {
            return Ok(());
        }
        match self.how {
            CrashHow::Error => return Err(format!("crash point {step:?} was asked for")),
            CrashHow::Kill => kill_own(std::process::id()),
            CrashHow::KillGuardian => guardian.into_iter().for_each(kill_own),
            CrashHow::KillBoth => {
                guardian.into_iter().for_each(kill_own);
                kill_own(std::process::id());
            }
        }
        // The signal may reach another thread of this process first: nothing more must happen here.
        if matches!(self.how, CrashHow::Kill | CrashHow::KillBoth) {
            loop {
                std::thread::park();
            }
        }
        Ok(())
    }
}
