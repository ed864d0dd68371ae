//! What can go wrong in the lab, told so that one knows what to do.

use std::fmt;
use std::io;

/// Why the lab cannot go on.
#[derive(Debug)]
pub enum Error {
    /// Something that the machine lacks; says what to install or allow.
    Missing(String),
    /// A system call failed.
    System {
        /// What was being done.
        doing: String,
        /// What the system said.
        source: io::Error,
    },
    /// A program did not end as it should.
    Program(String),
    /// A promise of the scenario does not hold.
    Check(String),
}

/// Result of the lab's functions.
pub type Result<T> = std::result::Result<T, Error>;

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(what) | Self::Program(what) | Self::Check(what) => f.write_str(what),
            Self::System { doing, source } => write!(f, "{doing}: {source}"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::System { source, .. } => Some(source),
            Self::Missing(_) | Self::Program(_) | Self::Check(_) => None,
        }
    }
}

/// Says what was being done when a system call failed.
pub trait Doing<T> {
    /// Adds the description to the error.
    ///
    /// # Errors
    /// [`Error::System`] when `self` is an error.
    fn doing(self, what: impl fmt::Display) -> Result<T>;
}

impl<T, E: Into<io::Error>> Doing<T> for std::result::Result<T, E> {
    fn doing(self, what: impl fmt::Display) -> Result<T> {
        self.map_err(|e| Error::System { doing: what.to_string(), source: e.into() })
    }
}

/// Fails the scenario with the given words unless the condition holds.
#[macro_export]
macro_rules! check {
    ($condition:expr, $($words:tt)+) => {
        if !$condition {
            return Err($crate::Error::Check(format!($($words)+)));
        }
    };
}
