//! What one check says.

use std::fmt;

/// How a check went, from best to worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Verdict {
    /// As it should be.
    Good,
    /// Worth knowing, and nothing to do on this machine as it is.
    Note,
    /// It works, and could be better.
    Advice,
    /// Annulus cannot run.
    Fatal,
}

impl Verdict {
    /// The word that lines and JSON have for it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Good => "ok",
            Self::Note => "note",
            Self::Advice => "advice",
            Self::Fatal => "FAIL",
        }
    }
}

/// The outcome of one check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Finding {
    /// What was checked.
    pub(super) what: String,
    pub(super) verdict: Verdict,
    /// What is there.
    pub(super) found: String,
    /// What it costs to leave it so.
    pub(super) cost: Option<String>,
    /// The command, or the change, that mends it.
    pub(super) mend: Option<String>,
}

impl Finding {
    fn new(verdict: Verdict, what: impl Into<String>, found: impl Into<String>) -> Self {
        Self { what: what.into(), verdict, found: found.into(), cost: None, mend: None }
    }

    pub(super) fn good(what: impl Into<String>, found: impl Into<String>) -> Self {
        Self::new(Verdict::Good, what, found)
    }

    pub(super) fn note(what: impl Into<String>, found: impl Into<String>) -> Self {
        Self::new(Verdict::Note, what, found)
    }

    pub(super) fn advice(what: impl Into<String>, found: impl Into<String>) -> Self {
        Self::new(Verdict::Advice, what, found)
    }

    pub(super) fn fatal(what: impl Into<String>, found: impl Into<String>) -> Self {
        Self::new(Verdict::Fatal, what, found)
    }

    pub(super) fn costs(mut self, cost: impl Into<String>) -> Self {
        self.cost = Some(cost.into());
        self
    }

    pub(super) fn mend(mut self, mend: impl Into<String>) -> Self {
        self.mend = Some(mend.into());
        self
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.found)?;
        if let Some(cost) = &self.cost {
            write!(f, "; costs: {cost}")?;
        }
        if let Some(mend) = &self.mend {
            write!(f, "; mend: {mend}")?;
        }
        Ok(())
    }
}
