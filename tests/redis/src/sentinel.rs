//! Soon.
/// Soon.
#[derive(Debug)]
pub struct Sentinel;
