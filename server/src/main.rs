//! The `proximity` binary.
fn main() {}
