//! Counts requests by the route that has answered them.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use axum::extract::{MatchedPath, Request};
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::Response;

use super::routes;
use crate::tally::{Calls, CallsReport};

/// The route of all requests that have none.
const NO_ROUTE: &str = "unknown";

/// Methods that are told apart; all further ones are the last.
const METHODS: [&str; 6] = ["GET", "HEAD", "POST", "PUT", "DELETE", "other"];

/// Classes of statuses, from 1xx to 5xx.
const CLASSES: usize = 5;

/// Requests by route and method, counted without a lock and, for inferences, without a look-up by text.
pub struct RouteCounts {
    places: HashMap<&'static str, [Option<usize>; METHODS.len()]>,
    counts: Vec<Place>,
    /// Of inferences, without a version and with one.
    inferences: [usize; 2],
}

struct Place {
    route: &'static str,
    method: &'static str,
    calls: Calls<CLASSES>,
}

/// What one route has answered, asked by one method.
#[derive(Debug, Clone, Copy)]
pub struct RouteReport {
    /// Its template, such as `/v2/models/{model}`; `unknown` for what is no route.
    pub route: &'static str,
    /// The method; `other` for what no route has.
    pub method: &'static str,
    /// The answers by the class of their status, from 1xx to 5xx, and how long their heads took.
    pub calls: CallsReport<CLASSES>,
}

impl fmt::Debug for RouteCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RouteCounts").finish_non_exhaustive()
    }
}

impl Default for RouteCounts {
    fn default() -> Self {
        let mut new = Self { places: HashMap::new(), counts: Vec::new(), inferences: [0; 2] };
        for (method, route, routed) in routes::counted() {
            new.put((route, routed), known(&method));
            if method == Method::GET {
                new.put((route, routed), known(&Method::HEAD));
            }
        }
        (0..METHODS.len()).for_each(|method| new.put((NO_ROUTE, NO_ROUTE), method));
        new.inferences = routes::INFERENCES.map(|route| new.place(&Method::POST, Some(route)));
        new
    }
}

impl RouteCounts {
    fn put(&mut self, (route, routed): (&'static str, &'static str), method: usize) {
        self.places.entry(routed).or_default()[method] = Some(self.counts.len());
        let (method, calls) = (METHODS[method], Calls::default());
        self.counts.push(Place { route, method, calls });
    }

    /// What every route has answered that has answered anything.
    pub fn report(&self) -> Vec<RouteReport> {
        let of = |place: &Place| {
            let calls = place.calls.read()?;
            Some(RouteReport { route: place.route, method: place.method, calls })
        };
        self.counts.iter().filter_map(of).collect()
    }

    /// Where an inference is counted; `None` for all else.
    pub(super) fn of_inference(&self, method: &Method, path: &str) -> Option<usize> {
        let (_, version) = routes::inference(method, path)?;
        Some(self.inferences[usize::from(version.is_some())])
    }

    /// Where a request is counted that the router has found this path for.
    pub(super) fn place(&self, method: &Method, matched: Option<&str>) -> usize {
        let method = known(method);
        let of = |path: &str| self.places.get(path).and_then(|places| places[method]);
        let place = matched.and_then(of).or_else(|| of(NO_ROUTE));
        place.expect("every method has a place without a route")
    }

    /// The template of a route; `None` for what has none.
    pub(super) fn route(&self, place: usize) -> Option<&'static str> {
        Some(self.counts[place].route).filter(|route| *route != NO_ROUTE)
    }

    pub(super) fn add(&self, place: usize, status: StatusCode, took: Duration) {
        let class = usize::from(status.as_u16() / 100).saturating_sub(1);
        self.counts[place].calls.add(class, took);
    }
}

fn known(method: &Method) -> usize {
    let known = METHODS.iter().position(|known| *known == method.as_str());
    known.unwrap_or(METHODS.len() - 1)
}

/// Notes in an answer which path of the router has given it.
pub(super) async fn note_path(request: Request, next: Next) -> Response {
    let matched = request.extensions().get::<MatchedPath>().cloned();
    let mut response = next.run(request).await;
    if let Some(matched) = matched {
        response.extensions_mut().insert(matched);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_is_counted_by_its_template() {
        let counts = RouteCounts::default();
        for (method, route, routed) in routes::counted() {
            let place = counts.place(&method, Some(routed));
            counts.add(place, StatusCode::NO_CONTENT, Duration::ZERO);
            assert_eq!(counts.counts[place].route, route);
            assert_eq!(counts.counts[place].method, method.as_str());
        }
        assert_eq!(counts.report().len(), routes::counted().len());
        assert!(counts.report().iter().all(|report| report.calls.results[1] >= 1));
    }

    #[test]
    fn what_no_route_has_is_counted_together() {
        let counts = RouteCounts::default();
        let patch = Method::from_bytes(b"PURGE").unwrap();
        for (method, path) in [(&patch, Some("/livez")), (&Method::PUT, Some("/livez"))] {
            let place = counts.place(method, path);
            assert_eq!(counts.counts[place].route, NO_ROUTE, "{method}");
        }
        let place = counts.place(&Method::GET, None);
        assert_eq!((counts.counts[place].route, counts.counts[place].method), (NO_ROUTE, "GET"));
    }

    #[test]
    fn inferences_are_counted_without_the_router() {
        let counts = RouteCounts::default();
        let of =
            |path| counts.of_inference(&Method::POST, path).map(|place| counts.counts[place].route);
        assert_eq!(of("/v2/models/m/infer"), Some("/v2/models/{model}/infer"));
        let versioned = "/v2/models/{model}/versions/{version}/infer";
        assert_eq!(of("/v2/models/m/versions/1/infer"), Some(versioned));
        assert_eq!(of("/v2/models/m/ready"), None);
    }
}
