//! What is to happen, when, and is it well?
pub mod load;
