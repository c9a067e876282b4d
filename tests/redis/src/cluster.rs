//! Soon.
/// Soon.
#[derive(Debug)]
pub struct Cluster;
