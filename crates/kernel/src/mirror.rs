//! Where Debian's archives are reached from this machine.

/// Base addresses of the two archives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirrors {
    /// The main archive.
    pub debian: String,
    /// The security archive.
    pub security: String,
}
impl crate::Cache {
    pub(crate) fn mirrors(&self) -> Mirrors {
        Mirrors {
            debian: "http://deb.debian.org/debian".to_owned(),
            security: "http://deb.debian.org/debian-security".to_owned(),
        }
    }
}
