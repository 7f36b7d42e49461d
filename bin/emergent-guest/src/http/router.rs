//! The routes of the guest, found by method and path.

use std::{collections::BTreeMap, sync::LazyLock};

use emergent_guest_proto::Route;
use http::Method;

/// The routes of each path, which differ by their methods.
static PATHS: LazyLock<matchit::Router<Vec<Route>>> = LazyLock::new(|| {
    let mut paths: BTreeMap<&str, Vec<Route>> = BTreeMap::new();
    for route in Route::ALL {
        paths.entry(route.path()).or_default().push(*route);
    }
    let mut router = matchit::Router::new();
    for (path, routes) in paths {
        router.insert(path, routes).expect("paths of routes are well-formed, and none is there twice");
    }
    router
});

/// The route of a request, and the id in the request's path; an empty one where the route has none.
pub(super) fn find<'p>(method: &Method, path: &'p str) -> Option<(Route, &'p str)> {
    let found = PATHS.at(path).ok()?;
    let route = found.value.iter().find(|route| route.method() == *method)?;
    Some((*route, found.params.get("id").unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_is_found_with_its_id() {
        for route in Route::ALL {
            let id = if route.path().contains("{id}") { "one" } else { "" };
            assert_eq!(find(&route.method(), &route.path_of(&"one")), Some((*route, id)));
        }
    }

    #[test]
    fn nothing_is_found_under_another_method_or_beside_a_path() {
        assert_eq!(find(&Method::POST, "/v1/hello"), None);
        assert_eq!(find(&Method::HEAD, "/v1/hello"), None);
        for path in ["", "/", "/v1/hello/", "/v1/executions/", "/v1/executions/one/two", "/v1/calls", "v1/hello"] {
            assert_eq!(find(&Method::GET, path), None, "{path}");
        }
    }

    #[test]
    fn an_id_is_taken_as_it_is_written() {
        assert_eq!(find(&Method::GET, "/v1/calls/no%20id"), Some((Route::CallOutcome, "no%20id")));
    }
}
