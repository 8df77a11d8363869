//! The one list of faults. Help, `squall faults`, the JSON Schema, the docs and the plan come from it.

use crate::Injector;
use crate::faults::command::Command;
use crate::faults::pop_drain::PopDrain;
use crate::faults::process_kill::ProcessKill;
use crate::faults::process_pause::ProcessPause;

/// Every fault, sorted by name.
pub const INJECTORS: &[&dyn Injector] = &[&Command, &PopDrain, &ProcessKill, &ProcessPause];

/// The fault with this name.
pub fn find(name: &str) -> Option<&'static dyn Injector> {
    INJECTORS.iter().copied().find(|injector| injector.about().name == name)
}
