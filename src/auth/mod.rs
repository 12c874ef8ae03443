//! Who may do what: credentials, the rules of requests, and what is written down of both.
//!
//! It knows no protocol. An adapter tells what a request presents and which [`Rule`] holds for it, and
//! gets an [`Access`], by which it asks for models, or a [`Denied`].

mod access;
mod audit;
mod denied;
mod digest;
mod following;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod guard;
mod jwk;
mod jwt;
mod keys;
mod new_key;
mod presented;
mod principal;
mod role;
mod rule;
mod scope;

pub use access::Access;
pub use audit::{Act, Audit, Pending, is_denied};
pub use denied::{Denied, Invalid};
pub use following::Following;
pub use guard::{Guard, Options, SourceError, TokenOptions};
pub use new_key::{NewKey, NewKeyError, Wish};
pub use presented::Presented;
pub use role::{Role, Roles};
pub use rule::{Deed, Reach, Rule};
