//! House tools.

fn main() {}
