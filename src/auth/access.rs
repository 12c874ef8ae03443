//! What a caller that was let in may reach.

use std::sync::Arc;

use super::denied::Denied;
use super::digest::Digest;
use super::principal::Principal;
use super::rule::Reach;
use super::scope::Scope;

/// What a caller that was let in may reach.
#[derive(Debug, Clone)]
pub struct Access(Option<Holder>);

#[derive(Debug, Clone)]
pub(super) struct Holder {
    pub(super) principal: Arc<Principal>,
    /// By which the credential is found again.
    pub(super) credential: Option<Digest>,
}

impl Access {
    /// That of everybody where nobody is asked for a credential.
    pub const EVERYTHING: Self = Self(None);

    pub(super) fn of(holder: Holder) -> Self {
        Self(Some(holder))
    }

    pub(super) fn holder(&self) -> Option<&Holder> {
        self.0.as_ref()
    }

    /// Whose it is, such as `key:ci`.
    pub fn who(&self) -> String {
        self.0.as_ref().map_or_else(|| "anonymous".to_owned(), |at| at.principal.to_string())
    }

    /// Whether it is for this model.
    pub fn sees(&self, model: &str) -> bool {
        self.0.as_ref().is_none_or(|holder| holder.principal.scope.has(model))
    }

    /// Whether it is for more than some models.
    pub fn is_unscoped(&self) -> bool {
        let scope = self.0.as_ref().map(|holder| &holder.principal.scope);
        scope.is_none_or(|scope| *scope == Scope::Everything)
    }

    /// # Errors
    /// [`Denied::Server`] where it is for some models only.
    pub fn on_server(&self) -> Result<(), Denied> {
        if self.is_unscoped() { Ok(()) } else { Err(Denied::Server { who: self.who() }) }
    }

    /// # Errors
    /// [`Denied::Model`] where it is not for this model.
    pub fn on_model(&self, model: &str) -> Result<(), Denied> {
        if self.sees(model) { Ok(()) } else { Err(Denied::Model { who: self.who() }) }
    }

    /// Whether it reaches what a request is about, which may name a model. Where it should and does not,
    /// only who may reach everything does.
    ///
    /// # Errors
    /// [`Denied`].
    pub fn reach(&self, reach: Reach, model: Option<&str>) -> Result<(), Denied> {
        match (reach, model) {
            (Reach::Visible, _) => Ok(()),
            (Reach::Model, Some(model)) => self.on_model(model),
            (Reach::Model, None) | (Reach::Server, _) => self.on_server(),
        }
    }
}
