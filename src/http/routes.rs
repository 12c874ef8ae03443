//! The table of routes, from which the router is built.

use std::sync::Arc;

use axum::Router;
use axum::http::Method;
use axum::middleware::from_fn;
use axum::routing::{MethodRouter, delete, get, post, put};

use super::Services;
use super::{
    changes, checks, counts, desired, docs, documents, events, finish, health, infer, lifecycle,
    logging, metadata, model_config, models, operations, repository, residence, resources,
    statistics, tfs, trace,
};

/// The protocol's root is also asked for with a slash at its end.
const ROOT_WITH_SLASH: &str = "/v2/";

type Handler = MethodRouter<Arc<Services>>;

struct Route {
    method: Method,
    path: &'static str,
    handler: Handler,
}

/// Every method and path, as `openapi.yaml` has them.
pub fn routes() -> Vec<(Method, &'static str)> {
    table().into_iter().map(|route| (route.method, route.path)).collect()
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
    let router = Router::new().route(ROOT_WITH_SLASH, get(metadata::server));
    table()
        .into_iter()
        .fold(router, |router, route| router.route(routed(route.path), route.handler))
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
    let (model, version) = match named.split_once("/versions/") {
        Some((model, version)) => (model, Some(version)),
        None => (named, None),
    };
    let is_plain = |part: &str| !part.is_empty() && !part.contains(['/', '%']);
    let is_one = method == Method::POST && is_plain(model) && version.is_none_or(is_plain);
    is_one.then_some((model, version))
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
        read("/livez", get(health::livez)),
        read("/readyz", get(health::readyz)),
        read("/startupz", get(health::startupz)),
        read("/metrics", get(documents::metrics)),
        read("/openapi.yaml", get(documents::openapi)),
        read("/docs", get(docs::to_index)),
        read("/docs/", get(docs::index)),
        read("/docs/{asset}", get(docs::asset)),
        read("/v2", get(metadata::server)),
        read("/v2/health/live", get(health::live)),
        read("/v2/health/ready", get(health::ready)),
        read("/v2/models", get(metadata::models)),
        read("/v2/models/{model}", get(metadata::model)),
        read("/v2/models/{model}/versions/{version}", get(metadata::model)),
        read("/v2/models/stats", get(statistics::all)),
        read("/v2/models/{model}/stats", get(statistics::model)),
        read("/v2/models/{model}/versions/{version}/stats", get(statistics::model)),
        read("/v2/models/{model}/ready", get(metadata::ready)),
        read("/v2/models/{model}/versions/{version}/ready", get(metadata::ready)),
        read("/v2/models/{model}/config", get(model_config::config)),
        read("/v2/models/{model}/versions/{version}/config", get(model_config::config)),
        write("/v2/models/{model}/infer", post(infer::infer)),
        write("/v2/models/{model}/versions/{version}/infer", post(infer::infer)),
        read("/v2/logging", get(logging::settings)),
        write("/v2/logging", post(logging::change)),
        read("/v2/trace/setting", get(trace::of_all)),
        write("/v2/trace/setting", post(trace::change_all)),
        read("/v2/models/{model}/trace/setting", get(trace::of_model)),
        write("/v2/models/{model}/trace/setting", post(trace::change_model)),
        write("/v1/models/{model}:predict", post(tfs::predict)),
        write("/v1/models/{model}/versions/{version}:predict", post(tfs::predict)),
        write("/v1/models/{model}/labels/{label}:predict", post(tfs::predict)),
        read("/v1/models/{model}", get(tfs::states)),
        read("/v1/models/{model}/versions/{version}", get(tfs::states)),
        read("/v1/models/{model}/labels/{label}", get(tfs::states)),
        read("/v1/models/{model}/metadata", get(tfs::metadata)),
        read("/v1/models/{model}/versions/{version}/metadata", get(tfs::metadata)),
        read("/v1/models/{model}/labels/{label}/metadata", get(tfs::metadata)),
        write("/v2/repository/index", post(repository::index)),
        write("/v2/repository/models/{model}/load", post(repository::load)),
        write("/v2/repository/models/{model}/unload", post(repository::unload)),
    ]
}

/// The application, its checks, resources and events.
fn application() -> Vec<Route> {
    vec![
        read("/lifecycle", get(lifecycle::application)),
        read("/lifecycle/checks", get(checks::list)),
        read("/lifecycle/checks/{kind}/{check}", get(checks::detail)),
        write("/lifecycle/checks/{kind}/{check}/run", post(checks::run)),
        read("/lifecycle/config", get(documents::configuration)),
        write("/lifecycle/drain", post(lifecycle::drain)),
        write("/lifecycle/resume", post(lifecycle::resume)),
        write("/lifecycle/shutdown", post(lifecycle::shutdown)),
        read("/lifecycle/events", get(events::page)),
        read("/lifecycle/events/stream", get(events::stream)),
        read("/lifecycle/hooks", get(events::hooks)),
        read("/lifecycle/resources", get(resources::list)),
        read("/lifecycle/resources/{resource}", get(resources::detail)),
        write("/lifecycle/resources/{resource}/init", post(resources::init)),
        write("/lifecycle/resources/{resource}/reset", post(resources::reset)),
        write("/lifecycle/resources/{resource}/clean", post(resources::clean)),
    ]
}

/// Models and their changes.
fn changes() -> Vec<Route> {
    vec![
        read("/lifecycle/models", get(models::list)),
        read("/lifecycle/models/{model}", get(models::detail)),
        write("/lifecycle/models/{model}/load", post(changes::load)),
        write("/lifecycle/models/{model}/unload", post(changes::unload)),
        write("/lifecycle/models/{model}/swap", post(changes::swap)),
        write("/lifecycle/models/{model}/rollback", post(changes::rollback)),
        write("/lifecycle/models/{model}/verify", post(changes::verify)),
        replace("/lifecycle/models/{model}/aliases/{alias}", put(changes::set_alias)),
        remove("/lifecycle/models/{model}/aliases/{alias}", delete(changes::remove_alias)),
        replace("/lifecycle/models/{model}/traffic", put(changes::set_traffic)),
        remove("/lifecycle/models/{model}/traffic", delete(changes::remove_traffic)),
        replace("/lifecycle/models/{model}/shadow", put(changes::set_shadow)),
        remove("/lifecycle/models/{model}/shadow", delete(changes::remove_shadow)),
        write("/lifecycle/models/{model}/leases", post(residence::lease)),
        replace("/lifecycle/models/{model}/leases/{lease}", put(residence::renew)),
        remove("/lifecycle/models/{model}/leases/{lease}", delete(residence::end)),
        read("/lifecycle/eviction", get(residence::plan)),
        write("/lifecycle/eviction", post(residence::evict)),
        read("/lifecycle/desired", get(desired::get)),
        replace("/lifecycle/desired", put(desired::put)),
        read("/lifecycle/operations", get(operations::list)),
        read("/lifecycle/operations/{operation}", get(operations::detail)),
        remove("/lifecycle/operations/{operation}", delete(operations::cancel)),
    ]
}

fn read(path: &'static str, handler: Handler) -> Route {
    Route { method: Method::GET, path, handler }
}

fn write(path: &'static str, handler: Handler) -> Route {
    Route { method: Method::POST, path, handler }
}

fn replace(path: &'static str, handler: Handler) -> Route {
    Route { method: Method::PUT, path, handler }
}

fn remove(path: &'static str, handler: Handler) -> Route {
    Route { method: Method::DELETE, path, handler }
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
