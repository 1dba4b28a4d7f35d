//! What a route is: verb, path, who may call it, what answers.

use std::future::Future;
use std::pin::Pin;

use super::call::Call;
use super::problem::Problem;
use super::reply::Reply;

/// The methods that routes have; HEAD comes with GET.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Verb {
    Get,
    Post,
    Put,
    Patch,
    Delete,
}

impl Verb {
    /// As it stands in a request line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
        }
    }

    /// Whether a call changes nothing.
    pub fn is_safe(self) -> bool {
        self == Self::Get
    }
}

/// Who may call a route; enforced before its handler is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// Anybody; whoever presents an identity is not looked up.
    Public,
    /// Anybody; an identity that is presented is looked up, and may be none any more.
    Optional,
    /// Any user who is signed in.
    User,
    /// Any user who has signed in as a person: an API token is not enough, or it could beget others.
    Person,
    /// Any user who is signed in; whose thing it is, the command's proof decides: 404 for others.
    Owner,
    /// Administrators.
    Admin,
}

/// The future of a handler.
pub type Answer = Pin<Box<dyn Future<Output = Result<Reply, Problem>> + Send>>;

/// One line of the table.
#[derive(Clone, Copy)]
pub struct Route {
    pub verb: Verb,
    /// `{name}` stands for one segment; no trailing slash.
    pub path: &'static str,
    /// `VERB path`.
    pub name: &'static str,
    pub policy: Policy,
    /// The headers of a success that not all calls have: `ETag`, `Location`.
    pub headers: &'static [&'static str],
    /// The codes that only this call answers with, besides those that all share.
    pub codes: &'static [&'static str],
    pub handler: fn(Call) -> Answer,
    /// The handler's path in the source, for the test that none is forgotten.
    pub handler_name: &'static str,
}

/// The code of a call whose `If-Match` does not hold.
pub const CHANGED: &str = "precondition.failed";

impl Route {
    /// Whether the handler compares an `If-Match` with the state of what it changes: then the code of
    /// that refusal stands among its own.
    pub fn compares_state(&self) -> bool {
        self.codes.contains(&CHANGED)
    }

    /// Whether a success may carry this header, of those that not all calls have.
    pub fn answers(&self, header: &str) -> bool {
        self.headers.contains(&header)
    }

    /// Calls the handler. What has no `ETag` matches none that a client could name (RFC 9110, 13.1.1).
    pub async fn answer(&self, call: Call) -> Result<Reply, Problem> {
        let wanted = call.presented.if_match.as_deref().map(str::trim);
        if !self.verb.is_safe() && !self.compares_state() && wanted.is_some_and(|tag| tag != "*") {
            let detail =
                "what this call changes has no ETag that could match; send no If-Match, or *";
            return Err(Problem::new(CHANGED, detail));
        }
        (self.handler)(call).await
    }

    /// Whether it changes nothing although its verb says that it may: its body holds a secret, which has
    /// no place in a path.
    pub fn only_looks(&self) -> bool {
        self.path == "/api/auth/token/verify"
    }

    /// Whether it waits while there are no whole read models; signing in goes on, so that a client can
    /// wait, too.
    pub fn needs_views(&self) -> bool {
        self.policy != Policy::Public && !self.path.starts_with("/api/auth/")
    }
}
