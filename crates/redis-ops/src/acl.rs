//! The least an ACL user needs.

/// The `ACL SETUSER …` line for a user that may do what Tidegate does under `prefix`, and nothing else.
pub fn acl_line(user: &str, prefix: &str) -> String {
    format!("ACL SETUSER {user} on ~{prefix}* &{prefix}* +@all")
}
