//! Where and how an injection is broken off.

/// The steps of an injection, as `--crash-at` knows them.
pub(crate) const STEPS: [&str; 8] =
    ["prepared", "intended", "held", "applied", "journalled", "undoing", "undone", "settled"];
/// What happens there: an error, or SIGKILL of the engine, of the guardian, of both.
pub(crate) const HOWS: [&str; 4] = ["error", "kill", "kill-guardian", "kill-both"];

/// Each step in each way. If only the short part is wanted, each step in one way, in turn: so every way comes as well.
pub(crate) fn points() -> Vec<(&'static str, &'static str)> {
    if super::in_short() {
        return STEPS.into_iter().zip(HOWS.into_iter().cycle()).collect();
    }
    STEPS.into_iter().flat_map(|step| HOWS.into_iter().map(move |how| (step, how))).collect()
}
