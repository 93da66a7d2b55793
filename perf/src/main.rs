//! Traffic generators and benchmarks.
fn main() {}
