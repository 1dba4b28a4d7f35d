//! What can keep a simulator from starting or from doing what its handle was asked.

/// The crate's error: everything that the handle and the start can fail with.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A socket could not be opened or read.
    #[error("{what} failed")]
    Io {
        /// What was tried, as a noun phrase.
        what: String,
        /// The operating system's reason.
        #[source]
        source: std::io::Error,
    },
    /// A certificate could not be made.
    #[error("the certificate could not be made")]
    Certificate(#[from] rcgen::Error),
    /// The TLS stack refused its configuration.
    #[error("the TLS configuration was refused")]
    Tls(#[from] rustls::Error),
    /// The configuration contradicts itself.
    #[error("invalid configuration: {0}")]
    Config(String),
    /// Something was named that does not exist.
    #[error("no such {kind}: {name}")]
    Unknown {
        /// The kind of thing, such as `node`.
        kind: &'static str,
        /// The name that was given.
        name: String,
    },
    /// A container was to be planted where one is already.
    #[error("VMID {0} is taken")]
    Taken(u32),
    /// A fault rule holds a regular expression that does not parse.
    #[error("the path pattern of the fault rule is not a regular expression")]
    Pattern(#[from] regex::Error),
}
