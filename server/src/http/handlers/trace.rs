//! The tree of one request.

use crate::http::call::Call;
use crate::http::problem::{Problem, chain};
use crate::http::reply::Reply;
use crate::trace::{self, Trace};

/// All that a request brought about: commands, events, operations, calls, tasks and the end of their
/// logs. To whom nothing of it belongs it does not exist; who has taken back a copy of an application of
/// the own that was somebody else's sees that, and nothing of the copy.
#[utoipa::path(get, path = "/api/audit/trace/{id}", tag = "events", params(("id" = String, Path, description = "The request's id, as in the header X-Request-Id of its answer")), responses((status = 200, description = "The tree", body = Trace)))]
pub async fn of_request(call: Call) -> Result<Reply, Problem> {
    let id: String = call.param("id")?;
    match trace::of(&call.app.store, &id, &call.actor).await {
        Ok(Some(trace)) => Reply::json(&trace),
        Ok(None) => Err(Problem::not_found()),
        Err(error) => {
            tracing::error!(request = call.request_id, error = chain(&error), "no trace");
            Err(Problem::internal())
        }
    }
}
