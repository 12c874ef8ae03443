//! The configuration in effect: every value with where it comes from.

use serde_json::{Value as Tree, json};

use super::Config;
use super::layers::Said;
use super::mistake::{Mistake, Origin};
use super::settings::Setting;
use super::value::{LoadMode, Raw, Wrong};
use crate::auth::Role;

/// What stands for a secret.
const MASK: &str = "***";

/// A sound configuration that knows where each value comes from.
#[derive(Debug, Clone)]
pub struct Effective {
    config: Config,
    table: &'static [Setting],
    /// For each setting of the table.
    origins: Vec<Origin>,
    /// For each setting of the table, what a reload has found and cannot change.
    pending: Vec<Option<Tree>>,
}

/// One setting as it is in effect.
#[derive(Debug, Clone)]
pub struct Row {
    /// The setting.
    pub setting: &'static Setting,
    /// Its value as in a file; masked where it is a secret.
    pub value: Tree,
    /// Where it comes from.
    pub origin: Origin,
    /// The value that it will have once the server is started anew; `None` where that is the same.
    pub pending: Option<Tree>,
}

/// What has become of a configuration that was read anew.
#[derive(Debug, Clone)]
pub struct Reloaded {
    /// What is in effect from now on.
    pub effective: Effective,
    /// The keys of the settings that have another value than before.
    pub changed: Vec<&'static str>,
    /// The keys of those that have another value in the layers, but keep theirs.
    pub ignored: Vec<&'static str>,
}

impl Effective {
    pub(super) fn defaults(table: &'static [Setting]) -> Self {
        let origins = vec![Origin::Default; table.len()];
        Self { config: Config::default(), table, origins, pending: vec![None; table.len()] }
    }

    /// The values.
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// Every setting, in the order of the documentation.
    pub fn rows(&self) -> Vec<Row> {
        let with_origins = self.table.iter().zip(&self.origins).zip(&self.pending);
        let row =
            |((setting, origin), pending): ((&'static Setting, &Origin), &Option<Tree>)| Row {
                setting,
                value: shown(setting, &self.config),
                origin: origin.clone(),
                pending: pending.clone(),
            };
        with_origins.map(row).collect()
    }

    /// What `read`, the same layers read anew, changes while the server runs: settings that are
    /// reloadable take their new value, others keep theirs.
    #[must_use]
    pub fn reloaded(&self, read: Self) -> Reloaded {
        let mut reloaded = Reloaded { effective: read, changed: vec![], ignored: vec![] };
        for (index, setting) in self.table.iter().enumerate() {
            let Reloaded { effective, changed, ignored } = &mut reloaded;
            if (setting.same)(&self.config, &effective.config) {
                continue;
            }
            if setting.reloadable {
                changed.push(setting.key);
                continue;
            }
            ignored.push(setting.key);
            effective.pending[index] = Some(shown(setting, &effective.config));
            effective.origins[index] = self.origins[index].clone();
            (setting.copy)(&mut effective.config, &self.config);
        }
        reloaded
    }

    /// Takes over what a layer says.
    pub(super) fn assign(&mut self, said: Said<'_>) -> Result<(), Mistake> {
        let Said { setting, raw, origin } = said;
        let masked = setting.secret && raw == Raw::One(MASK.to_owned());
        let problem = match (setting.assign)(&mut self.config, &raw, setting.bounds) {
            Ok(()) if !masked => {
                let index = self.index(setting.key);
                self.origins[index] = origin;
                return Ok(());
            }
            Ok(()) => "the secret is masked; write the secret itself".to_owned(),
            Err(Wrong { expected, .. }) if setting.secret => format!("expected {expected}"),
            Err(Wrong { expected, got }) => format!("expected {expected}, got {got}"),
        };
        Err(mistake(setting.key, origin, problem))
    }

    /// What is wrong with the settings taken together.
    pub(super) fn contradictions(&self) -> Vec<Mistake> {
        let found =
            [self.reachable(), self.half_of_tls(), self.unwatchable(), self.unknown_store()];
        let found = found.into_iter().chain(self.half_guarded()).flatten();
        let mistake = |(key, problem)| mistake(key, self.origins[self.index(key)].clone(), problem);
        found.map(mistake).collect()
    }

    fn reachable(&self) -> Option<(&'static str, String)> {
        let server = &self.config.server;
        let auth = &self.config.auth;
        let is_guarded = auth.is_on() && !auth.anonymous_roles.contains(&Role::Manage);
        if is_guarded || server.allow_unauthenticated_management {
            return None;
        }
        let mut managed = server.management().into_iter();
        let (key, address) = managed.find(|(_, address)| !address.ip().is_loopback())?;
        let problem = format!(
            "{address} can be reached by others, who could load and unload models without credentials; \
             listen on a loopback address, or have server.management_listen on one, or set auth.keys_file or \
             auth.jwks_file and leave manage out of auth.anonymous_roles, or set \
             server.allow_unauthenticated_management to true where the network keeps strangers out"
        );
        Some((key, problem))
    }

    /// What is said of callers, and would let in others than it seems.
    fn half_guarded(&self) -> [Option<(&'static str, String)>; 3] {
        let auth = &self.config.auth;
        let takes_tokens = auth.jwks_file.is_some();
        let unused = [
            ("auth.jwt_issuer", auth.jwt_issuer.is_some()),
            ("auth.jwt_audience", auth.jwt_audience.is_some()),
        ];
        let unused = unused.into_iter().find(|(_, given)| *given && !takes_tokens);
        let unused = unused.map(|(key, _)| {
            (key, "no token is taken without the keys that sign them, auth.jwks_file".to_owned())
        });
        let is_unbound = auth.jwt_issuer.is_none() || auth.jwt_audience.is_none();
        let unbound = (takes_tokens && is_unbound).then(|| {
            let problem = "it needs auth.jwt_issuer and auth.jwt_audience: else tokens would be taken \
                           that were issued for others";
            ("auth.jwks_file", problem.to_owned())
        });
        let is_open = !auth.is_on() && !auth.anonymous_roles.is_empty();
        let open = is_open.then(|| {
            let problem = "everybody may do everything as long as neither auth.keys_file nor \
                           auth.jwks_file is set";
            ("auth.anonymous_roles", problem.to_owned())
        });
        [unused, unbound, open]
    }

    fn half_of_tls(&self) -> Option<(&'static str, String)> {
        let server = &self.config.server;
        let [certificate, key, ca] =
            [&server.tls_certificate, &server.tls_key, &server.tls_client_ca].map(Option::is_some);
        let (has, missing) = match (certificate, key) {
            (true, false) => ("server.tls_certificate", "server.tls_key"),
            (false, true) => ("server.tls_key", "server.tls_certificate"),
            (false, false) if ca => ("server.tls_client_ca", "server.tls_certificate"),
            _ => return None,
        };
        Some((has, format!("TLS needs {missing} too")))
    }

    fn unwatchable(&self) -> Option<(&'static str, String)> {
        let models = &self.config.models;
        let is_watched = models.mode == LoadMode::Watch && models.store().is_some();
        let problem = "an object store gives no notice of changes, only a folder can be watched; use \
                       poll";
        is_watched.then(|| ("models.mode", problem.to_owned()))
    }

    fn unknown_store(&self) -> Option<(&'static str, String)> {
        let scheme = self.config.models.unknown_scheme()?;
        let problem = format!(
            "there is no kind of repository '{scheme}://'; it is a folder, or an address that begins \
             with s3://, gs://, az://, http:// or https://"
        );
        Some(("models.repository", problem))
    }

    /// Where the table has a setting.
    fn index(&self, key: &str) -> usize {
        let index = self.table.iter().position(|setting| setting.key == key);
        index.expect("only settings of the table are asked for")
    }
}

fn mistake(key: &str, origin: Origin, problem: String) -> Mistake {
    // A flag and a variable are the key in another spelling.
    let named = matches!(origin, Origin::Environment { .. } | Origin::Flag { .. });
    Mistake { origin, key: (!named).then(|| key.to_owned()), problem }
}

/// A value as it may be shown. That nobody has given a secret is none.
fn shown(setting: &Setting, config: &Config) -> Tree {
    let is_secret = setting.secret && !(setting.same)(config, &Config::default());
    if is_secret { json!(MASK) } else { (setting.show)(config) }
}
