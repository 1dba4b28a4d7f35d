//! The interactive page of the interface: served from here whole, it contacts no other host.

use crate::http::call::Call;
use crate::http::problem::Problem;
use crate::http::reply::Reply;

/// What the page may load: this server's own script, style and answers, and nothing else.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
    connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// A page to read and try every call.
#[utoipa::path(get, path = "/api/docs", tag = "core", responses((status = 200, description = "The page", body = String, content_type = "text/html")))]
pub async fn page(_call: Call) -> Result<Reply, Problem> {
    let page = include_str!("../../../assets/docs/index.html");
    Ok(Reply::text("text/html; charset=utf-8", page).policy(POLICY).tagged())
}

/// The page's script.
#[utoipa::path(get, path = "/api/docs/page.js", tag = "core", responses((status = 200, description = "The script", body = String, content_type = "text/javascript")))]
pub async fn script(_call: Call) -> Result<Reply, Problem> {
    let script = include_str!("../../../assets/docs/page.js");
    Ok(Reply::text("text/javascript; charset=utf-8", script).tagged())
}

/// The page's style.
#[utoipa::path(get, path = "/api/docs/page.css", tag = "core", responses((status = 200, description = "The style", body = String, content_type = "text/css")))]
pub async fn style(_call: Call) -> Result<Reply, Problem> {
    let style = include_str!("../../../assets/docs/page.css");
    Ok(Reply::text("text/css; charset=utf-8", style).tagged())
}
