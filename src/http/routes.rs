//! The table of routes, from which the router is built.

use std::sync::Arc;

use axum::Router;
use axum::http::Method;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::{MethodRouter, delete, get, post, put};

use super::Services;
use super::gate::{self, Gate};
use super::{
    changes, checks, counts, desired, docs, documents, events, finish, health, infer, lifecycle,
    logging, metadata, model_config, models, operations, repository, residence, resources,
    statistics, tfs, trace,
};
use crate::auth::{Audit, Deed, Guard, Reach, Rule};

/// The protocol's root is also asked for with a slash at its end.
const ROOT_WITH_SLASH: &str = "/v2/";

type Handler = MethodRouter<Arc<Services>>;

struct Route {
    method: Method,
    path: &'static str,
    rule: Rule,
    handler: Handler,
}

/// Everybody: probes.
const OPEN: Rule = Rule::Open;

/// What inferences need to be known, of whatever the caller may see.
const DESCRIBE: Rule = Rule::Needs(Deed::Describe, Reach::Visible);
const DESCRIBE_MODEL: Rule = Rule::Needs(Deed::Describe, Reach::Model);

/// What has nothing of models, or lists only those that the caller may see.
const READ: Rule = Rule::Needs(Deed::Read, Reach::Visible);
const READ_MODEL: Rule = Rule::Needs(Deed::Read, Reach::Model);
const READ_SERVER: Rule = Rule::Needs(Deed::Read, Reach::Server);

const INFER: Rule = Rule::Needs(Deed::Infer, Reach::Model);

/// A change of what the handler finds to be of a model that the caller may see.
const MANAGE: Rule = Rule::Needs(Deed::Manage, Reach::Visible);
const MANAGE_MODEL: Rule = Rule::Needs(Deed::Manage, Reach::Model);
const MANAGE_SERVER: Rule = Rule::Needs(Deed::Manage, Reach::Server);

/// Every method and path, as `openapi.yaml` has them.
pub fn routes() -> Vec<(Method, &'static str)> {
    table().into_iter().map(|route| (route.method, route.path)).collect()
}

/// The same, with who may make such a request.
pub fn rules() -> Vec<(Method, &'static str, Rule)> {
    table().into_iter().map(|route| (route.method, route.path, route.rule)).collect()
}

/// Every method and path, with the path that the router has found for it.
pub(super) fn counted() -> Vec<(Method, &'static str, &'static str)> {
    let counted = |(method, path)| (method, path, routed(path));
    let root = (Method::GET, "/v2", ROOT_WITH_SLASH);
    routes().into_iter().map(counted).chain([root]).collect()
}

/// The methods of a path of the table.
pub(super) fn methods(path: &str) -> Vec<String> {
    let path = if path == ROOT_WITH_SLASH { "/v2" } else { path };
    let here = routes().into_iter().filter(|(_, known)| *known == path).map(|(method, _)| method);
    let with_head = here.flat_map(|method| {
        let head = (method == Method::GET).then_some(Method::HEAD);
        std::iter::once(method).chain(head)
    });
    with_head.map(|method| method.to_string()).collect()
}

/// The router.
pub(super) fn router(services: Arc<Services>) -> Router {
    let (guard, audit) = (services.parts.guard.clone(), Arc::clone(&services.parts.audit));
    let root = read(ROOT_WITH_SLASH, DESCRIBE, get(metadata::server));
    std::iter::once(root)
        .chain(table())
        .fold(Router::new(), |router, route| {
            router.route(routed(route.path), guarded(route, (guard.as_ref(), &audit)))
        })
        .fallback(finish::no_such_path)
        .method_not_allowed_fallback(finish::method_not_allowed)
        .layer(from_fn(counts::note_path))
        .with_state(services)
}

/// The paths of inferences, by which they are counted.
pub(super) const INFERENCES: [&str; 2] =
    ["/v2/models/{model}/infer", "/v2/models/{model}/versions/{version}/infer"];

/// Of an inference request, the model and the version, as its path has them; `None` for any other, and where
/// something of the path is encoded.
pub(super) fn inference<'a>(method: &Method, path: &'a str) -> Option<(&'a str, Option<&'a str>)> {
    let named = path.strip_prefix("/v2/models/")?.strip_suffix("/infer")?;
    let (model, version) = match named.split_once('/') {
        Some((model, rest)) => (model, Some(rest.strip_prefix("versions/")?)),
        None => (named, None),
    };
    let is_plain = |part: &str| !part.is_empty() && !part.contains(['/', '%']);
    let is_one = method == Method::POST && is_plain(model) && version.is_none_or(is_plain);
    is_one.then_some((model, version))
}

/// The handler, with its rule before it. Without a guard there is nothing to pass, and changes are written down.
fn guarded(
    Route { rule, handler, .. }: Route,
    (guard, audit): (Option<&Arc<Guard>>, &Arc<Audit>),
) -> Handler {
    match rule {
        Rule::Needs(deed, reach) if guard.is_some() || deed == Deed::Manage => {
            let gate = Gate { guard: guard.cloned(), audit: Arc::clone(audit), deed, reach };
            handler.route_layer(from_fn_with_state(gate, gate::guarded))
        }
        Rule::Needs(..) | Rule::Open => handler,
    }
}

/// The path by which a request is routed: what stands behind a parameter is its handler's to read.
fn routed(path: &'static str) -> &'static str {
    path.strip_suffix(":predict").unwrap_or(path)
}

fn table() -> Vec<Route> {
    [protocol(), application(), changes()].into_iter().flatten().collect()
}

/// What probes, scrapers and the protocol's clients ask for.
fn protocol() -> Vec<Route> {
    vec![
        read("/livez", OPEN, get(health::livez)),
        read("/readyz", OPEN, get(health::readyz)),
        read("/startupz", OPEN, get(health::startupz)),
        read("/metrics", READ_SERVER, get(documents::metrics)),
        read("/openapi.yaml", READ, get(documents::openapi)),
        read("/docs", READ, get(docs::to_index)),
        read("/docs/", READ, get(docs::index)),
        read("/docs/{asset}", READ, get(docs::asset)),
        read("/v2", DESCRIBE, get(metadata::server)),
        read("/v2/health/live", OPEN, get(health::live)),
        read("/v2/health/ready", OPEN, get(health::ready)),
        read("/v2/models", DESCRIBE, get(metadata::models)),
        read("/v2/models/{model}", DESCRIBE_MODEL, get(metadata::model)),
        read("/v2/models/{model}/versions/{version}", DESCRIBE_MODEL, get(metadata::model)),
        read("/v2/models/stats", DESCRIBE, get(statistics::all)),
        read("/v2/models/{model}/stats", DESCRIBE_MODEL, get(statistics::model)),
        read("/v2/models/{model}/versions/{version}/stats", DESCRIBE_MODEL, get(statistics::model)),
        read("/v2/models/{model}/ready", DESCRIBE_MODEL, get(metadata::ready)),
        read("/v2/models/{model}/versions/{version}/ready", DESCRIBE_MODEL, get(metadata::ready)),
        read("/v2/models/{model}/config", DESCRIBE_MODEL, get(model_config::config)),
        read(
            "/v2/models/{model}/versions/{version}/config",
            DESCRIBE_MODEL,
            get(model_config::config),
        ),
        write("/v2/models/{model}/infer", INFER, post(infer::infer)),
        write("/v2/models/{model}/versions/{version}/infer", INFER, post(infer::infer)),
        read("/v2/logging", READ_SERVER, get(logging::settings)),
        write("/v2/logging", MANAGE_SERVER, post(logging::change)),
        read("/v2/trace/setting", READ_SERVER, get(trace::of_all)),
        write("/v2/trace/setting", MANAGE_SERVER, post(trace::change_all)),
        read("/v2/models/{model}/trace/setting", READ_MODEL, get(trace::of_model)),
        write("/v2/models/{model}/trace/setting", MANAGE_MODEL, post(trace::change_model)),
        write("/v1/models/{model}:predict", INFER, post(tfs::predict)),
        write("/v1/models/{model}/versions/{version}:predict", INFER, post(tfs::predict)),
        write("/v1/models/{model}/labels/{label}:predict", INFER, post(tfs::predict)),
        read("/v1/models/{model}", DESCRIBE_MODEL, get(tfs::states)),
        read("/v1/models/{model}/versions/{version}", DESCRIBE_MODEL, get(tfs::states)),
        read("/v1/models/{model}/labels/{label}", DESCRIBE_MODEL, get(tfs::states)),
        read("/v1/models/{model}/metadata", DESCRIBE_MODEL, get(tfs::metadata)),
        read("/v1/models/{model}/versions/{version}/metadata", DESCRIBE_MODEL, get(tfs::metadata)),
        read("/v1/models/{model}/labels/{label}/metadata", DESCRIBE_MODEL, get(tfs::metadata)),
        write("/v2/repository/index", DESCRIBE, post(repository::index)),
        write("/v2/repository/models/{model}/load", MANAGE_MODEL, post(repository::load)),
        write("/v2/repository/models/{model}/unload", MANAGE_MODEL, post(repository::unload)),
    ]
}

/// The application, its checks, resources and events.
fn application() -> Vec<Route> {
    vec![
        read("/lifecycle", READ_SERVER, get(lifecycle::application)),
        read("/lifecycle/checks", READ_SERVER, get(checks::list)),
        read("/lifecycle/checks/{kind}/{check}", READ_SERVER, get(checks::detail)),
        write("/lifecycle/checks/{kind}/{check}/run", MANAGE_SERVER, post(checks::run)),
        read("/lifecycle/config", READ_SERVER, get(documents::configuration)),
        write("/lifecycle/drain", MANAGE_SERVER, post(lifecycle::drain)),
        write("/lifecycle/resume", MANAGE_SERVER, post(lifecycle::resume)),
        write("/lifecycle/shutdown", MANAGE_SERVER, post(lifecycle::shutdown)),
        read("/lifecycle/events", READ_SERVER, get(events::page)),
        read("/lifecycle/events/stream", READ_SERVER, get(events::stream)),
        read("/lifecycle/hooks", READ_SERVER, get(events::hooks)),
        read("/lifecycle/resources", READ_SERVER, get(resources::list)),
        read("/lifecycle/resources/{resource}", READ_SERVER, get(resources::detail)),
        write("/lifecycle/resources/{resource}/init", MANAGE_SERVER, post(resources::init)),
        write("/lifecycle/resources/{resource}/reset", MANAGE_SERVER, post(resources::reset)),
        write("/lifecycle/resources/{resource}/clean", MANAGE_SERVER, post(resources::clean)),
    ]
}

/// Models and their changes.
fn changes() -> Vec<Route> {
    vec![
        read("/lifecycle/models", READ, get(models::list)),
        read("/lifecycle/models/{model}", READ_MODEL, get(models::detail)),
        write("/lifecycle/models/{model}/load", MANAGE_MODEL, post(changes::load)),
        write("/lifecycle/models/{model}/unload", MANAGE_MODEL, post(changes::unload)),
        write("/lifecycle/models/{model}/swap", MANAGE_MODEL, post(changes::swap)),
        write("/lifecycle/models/{model}/rollback", MANAGE_MODEL, post(changes::rollback)),
        write("/lifecycle/models/{model}/verify", MANAGE_MODEL, post(changes::verify)),
        replace("/lifecycle/models/{model}/aliases/{alias}", MANAGE_MODEL, put(changes::set_alias)),
        remove(
            "/lifecycle/models/{model}/aliases/{alias}",
            MANAGE_MODEL,
            delete(changes::remove_alias),
        ),
        replace("/lifecycle/models/{model}/traffic", MANAGE_MODEL, put(changes::set_traffic)),
        remove("/lifecycle/models/{model}/traffic", MANAGE_MODEL, delete(changes::remove_traffic)),
        replace("/lifecycle/models/{model}/shadow", MANAGE_MODEL, put(changes::set_shadow)),
        remove("/lifecycle/models/{model}/shadow", MANAGE_MODEL, delete(changes::remove_shadow)),
        write("/lifecycle/models/{model}/leases", MANAGE_MODEL, post(residence::lease)),
        replace("/lifecycle/models/{model}/leases/{lease}", MANAGE_MODEL, put(residence::renew)),
        remove("/lifecycle/models/{model}/leases/{lease}", MANAGE_MODEL, delete(residence::end)),
        read("/lifecycle/eviction", READ_SERVER, get(residence::plan)),
        write("/lifecycle/eviction", MANAGE_SERVER, post(residence::evict)),
        read("/lifecycle/desired", READ_SERVER, get(desired::get)),
        replace("/lifecycle/desired", MANAGE_SERVER, put(desired::put)),
        read("/lifecycle/operations", READ, get(operations::list)),
        read("/lifecycle/operations/{operation}", READ, get(operations::detail)),
        remove("/lifecycle/operations/{operation}", MANAGE, delete(operations::cancel)),
    ]
}

fn read(path: &'static str, rule: Rule, handler: Handler) -> Route {
    Route { method: Method::GET, path, rule, handler }
}

fn write(path: &'static str, rule: Rule, handler: Handler) -> Route {
    Route { method: Method::POST, path, rule, handler }
}

fn replace(path: &'static str, rule: Rule, handler: Handler) -> Route {
    Route { method: Method::PUT, path, rule, handler }
}

fn remove(path: &'static str, rule: Rule, handler: Handler) -> Route {
    Route { method: Method::DELETE, path, rule, handler }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inferences_are_told_from_all_else() {
        let of = |path| inference(&Method::POST, path);
        assert_eq!(of("/v2/models/m/infer"), Some(("m", None)));
        assert_eq!(of("/v2/models/m/versions/2/infer"), Some(("m", Some("2"))));
        assert_eq!(of("/v2/models/versions/infer"), Some(("versions", None)));
        for other in [
            "/v2/models/infer",
            "/v2/models//infer",
            "/v2/models/m%20n/infer",
            "/v2/models/m/n/infer",
            "/v2/models/m/versions//infer",
            "/v2/models/m/versions/2/3/infer",
            "/v2/models//versions/2/infer",
            "/v2/models/m/infer/",
            "/v2/models/m/ready",
        ] {
            assert_eq!(of(other), None, "{other}");
        }
        assert_eq!(inference(&Method::GET, "/v2/models/m/infer"), None);
    }
}
