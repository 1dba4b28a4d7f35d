//! The route table: every call with its effect's name, worker, permission, parameters and handler.

mod access;
mod cluster;
mod lxc;
#[cfg(test)]
mod schema_check;
mod storage;

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, LazyLock};

use http::Method;

use crate::params::formats::Format;
use crate::params::{Param, need, text, vmid};
use crate::reply::Outcome;
use crate::sim::{Call, Sim};

/// What a handler returns while it works.
pub(crate) type Working = Pin<Box<dyn Future<Output = Outcome> + Send>>;
/// A handler.
pub(crate) type Run = fn(Arc<Sim>, Arc<Call>) -> Working;

/// The permission that the table itself asks for; handlers may ask for more.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Check {
    /// Any caller.
    All,
    /// Every one of these on a path whose placeholders are parameters.
    Every(&'static str, &'static [&'static str]),
    /// Any one of these.
    Any(&'static str, &'static [&'static str]),
}

/// One call of the API.
pub(crate) struct Route {
    pub(crate) method: Method,
    pub(crate) path: &'static str,
    /// The name that faults and the journal use.
    pub(crate) effect: &'static str,
    /// Whether it runs in one of the blocking workers.
    pub(crate) protected: bool,
    pub(crate) check: Check,
    pub(crate) params: Vec<Param>,
    pub(crate) run: Run,
}

static TABLE: LazyLock<Vec<Route>> = LazyLock::new(|| {
    let mut table = access::routes();
    table.extend(cluster::routes());
    table.extend(lxc::routes());
    table.extend(storage::routes());
    table
});

/// Every route.
pub(crate) fn all() -> &'static [Route] {
    &TABLE
}

/// The names of all effects, for fault scripts.
#[must_use]
pub fn effects() -> Vec<&'static str> {
    let mut names: Vec<&str> = all().iter().map(|route| route.effect).collect();
    // The second task of `start=1` is no call of its own, but can be struck like one.
    names.push("container.start_hidden");
    names.sort_unstable();
    names.dedup();
    names
}

/// Whether API tokens are refused on a path.
pub(crate) fn closed_to_tokens(path: &str) -> bool {
    path == "/access/ticket"
}

/// The route of a request and what its path holds.
pub(crate) fn find(
    method: &Method,
    segments: &[&str],
) -> Option<(&'static Route, BTreeMap<String, String>)> {
    let mut best: Option<(&'static Route, BTreeMap<String, String>)> = None;
    for route in all().iter().filter(|route| route.method == *method) {
        if let Some(captured) = capture(route.path, segments) {
            // A literal segment beats a placeholder, so the fewest captures win.
            if best.as_ref().is_none_or(|(_, known)| captured.len() < known.len()) {
                best = Some((route, captured));
            }
        }
    }
    best
}

fn capture(pattern: &str, segments: &[&str]) -> Option<BTreeMap<String, String>> {
    let mut captured = BTreeMap::new();
    let parts: Vec<&str> = pattern.split('/').filter(|part| !part.is_empty()).collect();
    for (index, part) in parts.iter().enumerate() {
        let Some(name) = part.strip_prefix('{').and_then(|part| part.strip_suffix('}')) else {
            if segments.get(index) != Some(part) {
                return None;
            }
            continue;
        };
        // A volume id may hold a slash, and stands last.
        if name == "volume" {
            let rest = segments.get(index..).filter(|rest| !rest.is_empty())?;
            captured.insert(name.to_owned(), rest.join("/"));
            return Some(captured);
        }
        captured.insert(name.to_owned(), (*segments.get(index)?).to_owned());
    }
    (segments.len() == parts.len()).then_some(captured)
}

/// Builds a route; the placeholders of its path become parameters by themselves.
fn route(
    call: &'static str,
    effect: &'static str,
    protected: bool,
    check: Check,
    mut params: Vec<Param>,
    run: Run,
) -> Route {
    let (method, path) = call.split_once(' ').unwrap_or(("GET", call));
    let method = Method::from_bytes(method.as_bytes()).unwrap_or(Method::GET);
    for name in path.split('/').filter_map(|p| p.strip_prefix('{')?.strip_suffix('}')) {
        let kind = match name {
            "vmid" => vmid(),
            "storage" => text().of(Format::StorageId),
            "snapname" => text().at_most(40).of(Format::ConfigId),
            "tokenid" => text().of(Format::TokenId),
            "poolid" => text().of(Format::PoolId),
            _ => text(),
        };
        params.push(need(name, kind));
    }
    Route { method, path, effect, protected, check, params, run }
}

const PROTECTED: bool = true;
const PLAIN: bool = false;

/// Turns an async function into a handler.
macro_rules! run {
    ($handler:path) => {
        |sim, call| Box::pin($handler(sim, call))
    };
}
use run;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn literal_segments_win_and_volume_ids_may_hold_a_slash() {
        let split = |path: &'static str| path.split('/').collect::<Vec<_>>();
        let (route, captured) =
            find(&Method::GET, &split("nodes/pve1/storage/local/content/local:backup/a.tar"))
                .unwrap();
        assert_eq!(route.path, "/nodes/{node}/storage/{storage}/content/{volume}");
        assert_eq!(captured["volume"], "local:backup/a.tar");
        let (route, _) = find(&Method::GET, &split("nodes/pve1/lxc/100/status/current")).unwrap();
        assert_eq!(route.path, "/nodes/{node}/lxc/{vmid}/status/current");
        assert!(find(&Method::GET, &["nope"]).is_none());
        assert!(find(&Method::POST, &["version"]).is_none());
    }

    #[test]
    fn no_two_routes_are_the_same_call() {
        let mut calls: Vec<String> =
            all().iter().map(|route| format!("{} {}", route.method, route.path)).collect();
        calls.sort();
        let count = calls.len();
        calls.dedup();
        assert_eq!(calls.len(), count);
    }
}
