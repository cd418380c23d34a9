//! The way upstream: moves a driver's own source to another kernel's API, as a maintainer would by hand, one change for each
//! evolution.
//!
//! Never: prints, starts make itself, writes an overlay or an adapter, or edits the driver's directory before the whole
//! result is known.
//! Its main function is [`upgrade::upgrade`].

pub mod history;
pub mod upgrade;
