//! What people read: the matrix, gaps and ports as text and as JSON.
//!
//! Never: decides anything; what it shows was decided before. Output reads without colour.
//! Its main function is [`matrix_table`].

mod check;
mod diff;
mod matrix;
mod trial;

pub use check::{CheckCell, check_text};
pub use diff::port_diff;
pub use matrix::{matrix_json, matrix_table, port_text};
pub use trial::{trial_json, trial_table};
