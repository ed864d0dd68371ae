//! How a command ends: exit codes of sysexits(3), and failures that say what to do.

use std::fmt;

/// Exit codes, as in sysexits(3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// The command line is wrong.
    Usage = 64,
    /// An argument or a file holds something that cannot be.
    Data = 65,
    /// A file or a flow that was named does not exist.
    NoInput = 66,
    /// No name server is found for a name.
    NoHost = 68,
    /// The module, the daemon or a peer does not answer, or refuses.
    Unavailable = 69,
    /// A fault of mobctl itself.
    Software = 70,
    /// The operating system refused something.
    System = 71,
    /// A file cannot be created, or exists already.
    CannotCreate = 73,
    /// Reading or writing failed.
    Io = 74,
    /// Not now, perhaps later: the table is full, a move is in doubt.
    Temporary = 75,
    /// The other side of a device or socket speaks another language.
    Protocol = 76,
    /// Not permitted.
    NoPermission = 77,
    /// The configuration or a key file is wrong.
    Config = 78,
}

impl Exit {
    /// The exit code that `code` stands for, if any.
    #[must_use]
    pub fn from_code(code: u8) -> Option<Self> {
        [
            Self::Usage,
            Self::Data,
            Self::NoInput,
            Self::NoHost,
            Self::Unavailable,
            Self::Software,
            Self::System,
            Self::CannotCreate,
            Self::Io,
            Self::Temporary,
            Self::Protocol,
            Self::NoPermission,
            Self::Config,
        ]
        .into_iter()
        .find(|exit| *exit as u8 == code)
    }
}

/// Why a command failed, and what the user can do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The exit code.
    pub exit: Exit,
    /// What went wrong.
    pub message: String,
    /// What to do; empty when there is nothing to add.
    pub advice: String,
}

impl Failure {
    /// A failure without advice.
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), advice: String::new() }
    }

    /// The same with advice.
    #[must_use]
    pub fn advise(mut self, advice: impl Into<String>) -> Self {
        self.advice = advice.into();
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if self.advice.is_empty() { Ok(()) } else { write!(f, "\n{}", self.advice) }
    }
}

impl std::error::Error for Failure {}
