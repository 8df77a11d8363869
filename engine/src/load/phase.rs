//! The phase of the run, set by the run and read by every worker.

use std::sync::atomic::{AtomicU8, Ordering};

use reports::record::Phase;

/// The current phase, shared between the run and the workers of its loads.
#[derive(Debug)]
pub struct PhaseCell(AtomicU8);

impl PhaseCell {
    /// Starts in this phase.
    pub fn new(phase: Phase) -> Self {
        Self(AtomicU8::new(phase as u8))
    }

    /// From now on this phase.
    pub fn set(&self, phase: Phase) {
        self.0.store(phase as u8, Ordering::Relaxed);
    }

    /// The phase now.
    pub fn get(&self) -> Phase {
        Phase::ALL[usize::from(self.0.load(Ordering::Relaxed))]
    }
}

/// The phase to which a request belongs: the fault's if it touched the fault, else that of its dispatch.
pub(super) fn attribute(dispatched: Phase, completed: Phase) -> Phase {
    if completed == Phase::Fault { Phase::Fault } else { dispatched }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_that_touched_the_fault_belongs_to_it() {
        assert_eq!(attribute(Phase::Baseline, Phase::Fault), Phase::Fault);
        assert_eq!(attribute(Phase::Fault, Phase::Recovery), Phase::Fault);
        assert_eq!(attribute(Phase::Recovery, Phase::After), Phase::Recovery);
    }

    #[test]
    fn the_cell_keeps_every_phase() {
        let cell = PhaseCell::new(Phase::WarmUp);
        for phase in Phase::ALL {
            cell.set(phase);
            assert_eq!(cell.get(), phase);
        }
    }
}
