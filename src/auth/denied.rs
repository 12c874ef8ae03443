//! Why a request may not be made.

/// Why a request may not be made. It tells nothing of whether a model exists.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// It presents no credential, and needs one.
    #[error("this needs a credential: Authorization: Bearer, or X-API-Key")]
    Missing,
    /// What it presents is no credential.
    #[error("{0}")]
    Invalid(Invalid),
    /// Its caller is not given the role.
    #[error("this needs {needs}, which {who} has not")]
    Role {
        /// The caller.
        who: String,
        /// What is needed.
        needs: &'static str,
    },
    /// Its caller's credential is not for this model.
    #[error("{who} may not do this with this model")]
    Model {
        /// The caller.
        who: String,
    },
    /// It concerns the server as a whole, and its caller's credential is for some models.
    #[error("this concerns all models, and {who} may use some")]
    Server {
        /// The caller.
        who: String,
    },
}

/// Why something presented is no credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// It cannot be read.
    #[error("the credential cannot be read: expected one, in visible ASCII")]
    Malformed,
    /// Nobody has it.
    #[error("the credential is not known")]
    Unknown,
    /// It was one.
    #[error("the credential has expired")]
    Expired,
    /// It will be one.
    #[error("the token is not valid yet")]
    Early,
    /// It is a token, and is not signed in a way that is taken.
    #[error("the token's algorithm is not that of its key: RS256, ES256 or EdDSA")]
    Algorithm,
    /// It is a token, and names no key that is known.
    #[error("the token is signed by a key that is not known")]
    Signer,
    /// It is a token, and its signature is not that of its key.
    #[error("the token's signature is wrong")]
    Signature,
    /// It is a token of another issuer.
    #[error("the token is of another issuer")]
    Issuer,
    /// It is a token for others.
    #[error("the token is for another audience")]
    Audience,
    /// It is a token without a claim that has to be there, or with one that cannot be read.
    #[error("the token's claim {0} is missing, or cannot be read")]
    Claim(&'static str),
}

impl Denied {
    /// Whose credential is not enough, where it is one.
    pub fn who(&self) -> Option<&str> {
        match self {
            Self::Missing | Self::Invalid(_) => None,
            Self::Role { who, .. } | Self::Model { who } | Self::Server { who } => Some(who),
        }
    }

    /// Whether another credential, or one at all, is asked for; otherwise the caller is known, and may
    /// not do this.
    pub const fn asks_for_credential(&self) -> bool {
        matches!(self, Self::Missing | Self::Invalid(_))
    }
}
