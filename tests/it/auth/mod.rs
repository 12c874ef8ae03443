//! Who may do what: credentials over both protocols, what is written down of it, and what is not.

mod audit;
mod calls;
mod following;
mod routes;
mod starting;
mod tokens;

use std::fs;
use std::path::PathBuf;

use onward::auth::{Deed, NewKey, Reach, Role, Rule, Wish};
use reqwest::{Method, Response};
use tempfile::TempDir;

use crate::support::onnx::add_constant;
use crate::support::{Repository, Server};

/// Whoever asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    Nobody,
    Read,
    Infer,
    Manage,
    /// For the models `own` and `own-*` alone.
    OwnInfer,
    OwnManage,
}

impl Who {
    const ALL: [Self; 6] =
        [Self::Nobody, Self::Read, Self::Infer, Self::Manage, Self::OwnInfer, Self::OwnManage];

    fn role(self) -> Option<Role> {
        match self {
            Self::Nobody => None,
            Self::Read => Some(Role::Read),
            Self::Infer | Self::OwnInfer => Some(Role::Infer),
            Self::Manage | Self::OwnManage => Some(Role::Manage),
        }
    }

    fn is_scoped(self) -> bool {
        matches!(self, Self::OwnInfer | Self::OwnManage)
    }

    /// The models that a credential is for; none where it is for all.
    fn models(self) -> &'static [&'static str] {
        if self.is_scoped() { &["own", "own-*"] } else { &[] }
    }

    /// What has to become of a request with this rule, which may name a model.
    fn expected(self, rule: Rule, model: Option<&str>) -> Verdict {
        let Rule::Needs(deed, reach) = rule else { return Verdict::Allowed };
        let Some(given) = self.role() else { return Verdict::Unknown };
        let enough = match deed {
            Deed::Describe => true,
            Deed::Read => given != Role::Infer,
            Deed::Infer => given != Role::Read,
            Deed::Manage => given == Role::Manage,
        };
        let reached = match reach {
            Reach::Visible => true,
            Reach::Model => !self.is_scoped() || model == Some("own"),
            Reach::Server => !self.is_scoped(),
        };
        if enough && reached { Verdict::Allowed } else { Verdict::Forbidden }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Allowed,
    /// 401, or the code 16.
    Unknown,
    /// 403, or the code 7.
    Forbidden,
}

/// A credential for each that asks.
#[derive(Debug)]
struct Keys {
    keys: Vec<(Who, String)>,
    source: Source,
}

/// What a server knows them by.
#[derive(Debug)]
struct Source {
    home: TempDir,
    settings: Vec<(&'static str, String)>,
}

impl Keys {
    /// Those of a file of keys.
    fn new() -> Self {
        let (home, mut keys, mut text) =
            (TempDir::new().unwrap(), Vec::new(), "keys:\n".to_owned());
        for who in Who::ALL {
            let Some(role) = who.role() else { continue };
            let NewKey { key, entry } = new_key(&format!("{who:?}"), role, who.models());
            text.push_str(&entry);
            keys.push((who, key));
        }
        let path = home.path().join("keys.yaml");
        fs::write(&path, text).unwrap();
        let settings = vec![("auth.keys_file", path.to_str().unwrap().to_owned())];
        Self { keys, source: Source { home, settings } }
    }

    fn path(&self) -> PathBuf {
        self.source.home.path().join("keys.yaml")
    }

    fn of(&self, who: Who) -> Option<&str> {
        self.keys.iter().find(|(known, _)| *known == who).map(|(_, key)| key.as_str())
    }
}

fn new_key(name: &str, role: Role, models: &[&str]) -> NewKey {
    let models = models.iter().map(|model| (*model).to_owned()).collect();
    let wish = Wish { name: name.to_owned(), roles: vec![role], models, expires: None };
    NewKey::generate(&wish).unwrap()
}

/// A server with the models `own` and `other`.
async fn guarded(keys: &Keys, settings: &[(&str, &str)]) -> Server {
    let repository = Repository::of("own", &add_constant(1.0)).and("other", 1, &add_constant(2.0));
    let of_keys: Vec<(&str, &str)> =
        keys.source.settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
    // Nobody may ask whether it is ready.
    Server::start_with(repository, &[&of_keys, settings].concat()).await
}

/// Asks, with this key.
async fn ask(
    server: &Server,
    key: Option<&str>,
    (method, path): (Method, &str),
    body: &str,
) -> Response {
    let mut request = server.request(method, path).body(body.to_owned());
    if let Some(key) = key {
        request = request.bearer_auth(key);
    }
    request.send().await.unwrap()
}
