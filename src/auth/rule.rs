//! What a request needs.

/// What is done by a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deed {
    /// Reads what inferences need to be known: metadata, and whether a model is ready.
    Describe,
    /// Reads what operators know.
    Read,
    /// Asks a model.
    Infer,
    /// Changes what is served, or how.
    Manage,
}

impl Deed {
    /// The least that does it, in words.
    pub(super) const fn needs(self) -> &'static str {
        match self {
            Self::Describe => "a role",
            Self::Read => "the role read",
            Self::Infer => "the role infer",
            Self::Manage => "the role manage",
        }
    }
}

/// What a request is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// The model that it names.
    Model,
    /// Whatever the caller may see: the answer has nothing of another model.
    Visible,
    /// The server as a whole, with all its models.
    Server,
}

/// Who may make a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// Everybody, also without a credential.
    Open,
    /// Who may do this, and there.
    Needs(Deed, Reach),
}
