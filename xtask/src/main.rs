//! Corpus measurements, benches and fixtures of kspan.

fn main() {}
