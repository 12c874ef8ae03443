//! Lets requests in.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;

use super::access::{Access, Holder};
use super::denied::{Denied, Invalid};
use super::digest::Digest;
use super::following::Followed;
use super::jwt::{self, Terms, Tokens};
use super::keys::Keys;
use super::presented::Presented;
use super::principal::Principal;
use super::role::Roles;
use super::rule::Deed;
use crate::causes;
use crate::lifecycle::{Event, EventBus};

/// The settings that name the files.
const KEYS: &str = "auth.keys_file";
const JWKS: &str = "auth.jwks_file";

/// Where credentials come from.
#[derive(Debug, Clone)]
pub struct Options {
    /// The file of API keys.
    pub keys_file: Option<PathBuf>,
    /// Tokens.
    pub tokens: Option<TokenOptions>,
    /// What whoever presents nothing may do.
    pub anonymous: Roles,
}

/// Which tokens are taken.
#[derive(Debug, Clone)]
pub struct TokenOptions {
    /// The JSON Web Key Set with the keys that sign them.
    pub jwks_file: PathBuf,
    /// What `iss` has to be.
    pub issuer: String,
    /// What has to be in `aud`.
    pub audience: String,
    /// The claim with roles: its name, or a JSON Pointer to it.
    pub roles_claim: String,
    /// The claim with patterns of models' names.
    pub models_claim: String,
}

/// Why a file with credentials cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{setting}: {}: {problem}", path.display())]
pub struct SourceError {
    /// The setting that names it.
    pub setting: &'static str,
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub problem: String,
}

/// Lets requests in by what they present. A lookup takes a hash, a look into a map and no lock.
#[derive(Debug)]
pub struct Guard {
    keys: Option<Source<Keys>>,
    tokens: Option<(Source<Tokens>, Terms)>,
    anonymous: Option<Arc<Principal>>,
    events: EventBus,
}

/// What a file says, as long as nothing better has been read there.
#[derive(Debug)]
struct Source<T> {
    setting: &'static str,
    current: ArcSwap<T>,
    file: Mutex<Followed>,
    parse: fn(&[u8]) -> Result<T, String>,
}

impl Guard {
    /// Reads the files.
    ///
    /// # Errors
    /// [`SourceError`] where one cannot be read or is not what it should be.
    pub fn open(options: Options, events: EventBus) -> Result<Self, SourceError> {
        let Options { keys_file, tokens, anonymous } = options;
        let tokens = tokens.map(|options| {
            let TokenOptions { jwks_file, issuer, audience, roles_claim, models_claim } = options;
            let terms = Terms { issuer, audience, roles_claim, models_claim };
            Source::open(JWKS, &jwks_file, parse_tokens).map(|source| (source, terms))
        });
        let keys = keys_file.map(|path| Source::open(KEYS, &path, parse_keys));
        let anonymous = (!anonymous.is_empty()).then(|| Arc::new(Principal::anonymous(anonymous)));
        Ok(Self { keys: keys.transpose()?, tokens: tokens.transpose()?, anonymous, events })
    }

    /// Lets in whoever presents this, where they may do that.
    ///
    /// # Errors
    /// [`Denied`].
    pub fn admit(&self, presented: Presented<'_>, deed: Deed) -> Result<Access, Denied> {
        self.identify(presented).and_then(|holder| allowed(holder, deed))
    }

    /// The same for somebody who was let in a while ago: the credential may have expired since, or be
    /// taken back.
    ///
    /// # Errors
    /// [`Denied`].
    pub fn again(&self, access: &Access, deed: Deed) -> Result<Access, Denied> {
        let Some(holder) = access.holder() else { return Ok(Access::EVERYTHING) };
        let Some(digest) = holder.credential else {
            return self.admit(Presented::Nothing, deed);
        };
        let principal = match self.key(&digest) {
            Some(principal) => principal,
            None if self.is_of_token(&holder.principal) => Arc::clone(&holder.principal),
            None => return Err(Denied::Invalid(Invalid::Unknown)),
        };
        valid(principal, digest).and_then(|holder| allowed(holder, deed))
    }

    fn is_of_token(&self, principal: &Principal) -> bool {
        self.tokens.is_some() && principal.known == super::principal::Known::Token
    }

    fn identify(&self, presented: Presented<'_>) -> Result<Holder, Denied> {
        let (credential, may_be_token) = match presented {
            Presented::Nothing => {
                let principal = self.anonymous.clone().ok_or(Denied::Missing)?;
                return Ok(Holder { principal, credential: None });
            }
            Presented::Malformed => return Err(Denied::Invalid(Invalid::Malformed)),
            Presented::Bearer(credential) => (credential, jwt::is_token(credential)),
            Presented::Key(credential) => (credential, false),
        };
        let digest = Digest::of(credential);
        let principal = match &self.tokens {
            Some((tokens, terms)) if may_be_token => {
                let found = tokens.current.load().find((credential, digest), terms);
                found.map_err(Denied::Invalid)?
            }
            _ => self.key(&digest).ok_or(Denied::Invalid(Invalid::Unknown))?,
        };
        valid(principal, digest)
    }

    fn key(&self, digest: &Digest) -> Option<Arc<Principal>> {
        self.keys.as_ref()?.current.load().find(digest).cloned()
    }

    /// Looks at the files, and takes what has changed and stayed the same for a while. Blocks.
    pub(super) fn look(&self) {
        self.look_at_all(false);
    }

    /// The same, at once.
    pub fn reload(&self) {
        self.look_at_all(true);
    }

    fn look_at_all(&self, at_once: bool) {
        let keys = self.keys.as_ref().and_then(|keys| keys.look(at_once));
        let tokens = self.tokens.as_ref().and_then(|(tokens, _)| tokens.look(at_once));
        for (setting, result) in [(KEYS, keys), (JWKS, tokens)] {
            let Some(result) = result else { continue };
            let changed = result.is_ok().then(|| setting.to_owned()).into_iter().collect();
            let kept = |error: SourceError| format!("{error}; what was read before holds on");
            let detail = result.err().map(kept).unwrap_or_default();
            self.events.publish(Event::Configuration { changed, ignored: Vec::new(), detail });
        }
    }
}

/// What a holder may reach who may do this.
fn allowed(holder: Holder, deed: Deed) -> Result<Access, Denied> {
    if holder.principal.roles.allow(deed) {
        return Ok(Access::of(holder));
    }
    match holder.credential {
        None => Err(Denied::Missing),
        Some(_) => Err(Denied::Role { who: holder.principal.to_string(), needs: deed.needs() }),
    }
}

fn valid(principal: Arc<Principal>, digest: Digest) -> Result<Holder, Denied> {
    if principal.is_valid() {
        Ok(Holder { principal, credential: Some(digest) })
    } else {
        Err(Denied::Invalid(Invalid::Expired))
    }
}

fn parse_keys(content: &[u8]) -> Result<Keys, String> {
    let text = str::from_utf8(content).map_err(|_| "it is not UTF-8".to_owned())?;
    Keys::parse(text).map_err(|error| error.to_string())
}

fn parse_tokens(content: &[u8]) -> Result<Tokens, String> {
    Tokens::parse(content).map_err(|error| error.to_string())
}

impl<T> Source<T> {
    fn open(
        setting: &'static str,
        path: &Path,
        parse: fn(&[u8]) -> Result<T, String>,
    ) -> Result<Self, SourceError> {
        let wrong = |problem| SourceError { setting, path: path.to_owned(), problem };
        let begun = Followed::begin(path.to_owned());
        let (file, content) = begun.map_err(|error| wrong(causes::of_error(&error)))?;
        let current = ArcSwap::from_pointee(parse(&content).map_err(wrong)?);
        Ok(Self { setting, current, file: Mutex::new(file), parse })
    }

    /// Takes what has come to be in the file, where something has.
    fn look(&self, at_once: bool) -> Option<Result<(), SourceError>> {
        let mut file = self.file();
        let read = file.look(at_once)?;
        let parsed = read
            .map_err(|error| causes::of_error(&error))
            .and_then(|content| (self.parse)(&content));
        let (setting, path) = (self.setting, file.path.clone());
        Some(match parsed {
            Ok(new) => {
                self.current.store(Arc::new(new));
                Ok(())
            }
            Err(problem) => Err(SourceError { setting, path, problem }),
        })
    }

    fn file(&self) -> MutexGuard<'_, Followed> {
        self.file.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
