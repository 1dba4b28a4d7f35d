//! What a PostgreSQL role may do to stored events: the serving role should not be able to change them.

/// The rights of the role that asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rights {
    pub role: String,
    /// What it may do besides reading and adding, e.g. `update`; its owner may do everything.
    pub excess: Vec<String>,
}
