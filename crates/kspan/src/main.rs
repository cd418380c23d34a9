//! The kspan command.

fn main() {}
