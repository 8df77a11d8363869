pub mod schedule; mod random; mod http; mod clock; mod class; mod phase;
pub use class::*; pub use phase::PhaseCell;
