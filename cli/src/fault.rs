//! How a command ends: it answered yes, it answered no, or it could not answer.

use std::fmt::Display;
use std::process::ExitCode;

/// The answer of a command that got that far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// What was asked for is so, or is done. Exit code 0.
    Yes,
    /// It is not so. The reason stands in the output. Exit code 1.
    No,
}

/// Why a command has nothing to show.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Somebody who may decide refused. Exit code 1.
    #[error("{0}")]
    Refused(String),
    /// The question could not be put, or not be answered. Exit code 2.
    #[error("{0}")]
    Unanswered(String),
    /// Whoever read the output has gone, which is their right. Exit code 0.
    #[error("the reader of the output has gone")]
    ReaderGone,
}

impl Fault {
    /// [`Fault::Refused`] with this reason.
    pub fn refused(reason: impl Display) -> Self {
        Self::Refused(reason.to_string())
    }

    /// [`Fault::Unanswered`] with this reason.
    pub fn unanswered(reason: impl Display) -> Self {
        Self::Unanswered(reason.to_string())
    }
}

impl From<std::io::Error> for Fault {
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::BrokenPipe => Self::ReaderGone,
            _ => Self::Unanswered(error.to_string()),
        }
    }
}

/// The exit code of an outcome.
#[must_use]
pub fn exit_code(outcome: &Result<Answer, Fault>) -> ExitCode {
    match outcome {
        Ok(Answer::Yes) | Err(Fault::ReaderGone) => ExitCode::SUCCESS,
        Ok(Answer::No) | Err(Fault::Refused(_)) => ExitCode::from(1),
        Err(Fault::Unanswered(_)) => ExitCode::from(2),
    }
}
