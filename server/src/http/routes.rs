//! The route table: every call there is, who may make it, and the one function that answers it.

use super::handlers::{catalog, core, health};
use super::route::{Policy, Route, Verb};

macro_rules! routes {
    ($($verb:ident $path:literal $policy:ident $handler:path $(: $($code:literal)+)?;)*) => {
        &[$(Route {
            verb: Verb::$verb,
            path: $path,
            name: concat!(stringify!($verb), " ", $path),
            policy: Policy::$policy,
            codes: &[$($($code),+)?],
            handler: |call| Box::pin($handler(call)),
            handler_name: stringify!($handler),
        }),*]
    };
}

/// All routes; the order is the order of the documentation.
#[rustfmt::skip]
pub static ROUTES: &[Route] = routes! {
    Get    "/healthz"                       Public   health::alive;
    Get    "/readyz"                        Public   health::ready;
    Get    "/metrics"                       Public   health::metrics;
    Get    "/api/health"                    Public   health::api;
    Get    "/api/core/health"               Public   health::api_core;
    Get    "/api/openapi.json"              Public   core::openapi;
    Get    "/problems/{code}"               Public   core::problem_page: "not_found";
    Get    "/api/core/system/info"          Public   core::system_info;

    Get    "/api/catalog"                   Public   catalog::list;
    Get    "/api/catalog/categories"        Public   catalog::categories;
    Get    "/api/catalog/search"            Public   catalog::search;
    Get    "/api/catalog/stats"             Public   catalog::stats;
    Get    "/api/catalog/category/{category}" Public catalog::category;
    Get    "/api/catalog/{id}"              Public   catalog::get: "not_found";
    Post   "/api/catalog/reload"            Admin    catalog::reload;
};
