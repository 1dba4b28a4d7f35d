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
    /// The codes that only this call answers with, besides those that all share.
    pub codes: &'static [&'static str],
    pub handler: fn(Call) -> Answer,
    /// The handler's path in the source, for the test that none is forgotten.
    pub handler_name: &'static str,
}

impl Route {
    /// Whether it waits while there are no whole read models; signing in goes on, so that a client can
    /// wait, too.
    pub fn needs_views(&self) -> bool {
        self.policy != Policy::Public && !self.path.starts_with("/api/auth/")
    }
}
