//! Who acts: carried from the door to the log, where it stands in the metadata of every event.

use std::net::IpAddr;
use std::sync::Arc;

use proximity_domain::user::Role;
use proximity_domain::{ScheduleId, SessionId, UserId};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::agreed::{Agreed, Picks};
use crate::once::Once;
use crate::preview::Preview;
use crate::seen::Seen;
use crate::told::Told;

/// The one on whose behalf something is done, and how the request came in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actor {
    pub identity: Identity,
    /// The address that the request came from, trusted proxies taken off.
    pub source: Option<IpAddr>,
    /// The id under which the request's log lines are found.
    pub request: Option<String>,
    /// Who is at the operator's shell, if it came from there.
    pub shell: Option<Shell>,
    /// The idempotency key of the request: the first unit of work that is stored takes it.
    pub once: Option<Arc<Once>>,
    /// Nothing is to be stored: what would be is left here.
    pub preview: Option<Arc<Preview>>,
    /// Only this very plan is to be stored.
    pub agreed: Option<Arc<Agreed>>,
    /// Only what has not changed since this is to be changed.
    pub seen: Seen,
    /// Whether anything that the request did is in the log.
    pub told: Told,
}

/// Who gave a command at the operator's shell, and where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shell {
    /// The account, as the operating system says.
    pub account: String,
    /// The machine's name.
    pub host: String,
    /// The command's own id, which all that it does is found by.
    pub request: String,
}

/// Who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Identity {
    /// Nobody signed in: login and registration.
    Anonymous,
    /// A user, as the side rows described them when the request was authenticated.
    User { id: UserId, role: Role, credential: CredentialUsed },
    /// A schedule, which has its owner's rights over the owner's own things, and no others.
    Schedule { id: ScheduleId, owner: UserId },
    /// A part of the program by its name (`reconciler`, `node-watch`), or the operator's shell.
    System(&'static str),
}

/// What the user showed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CredentialUsed {
    Session(SessionId),
    ApiToken { id: Uuid, may: Scopes },
}

/// What an API token may be used for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Scopes {
    /// Calls that change nothing.
    pub read: bool,
    /// Calls that change something.
    pub write: bool,
    /// The rights of an administrator, as long as the user is one.
    pub admin: bool,
}

impl Actor {
    /// Someone whose request has no idempotency key and is meant.
    pub fn new(identity: Identity, source: Option<IpAddr>, request: Option<String>) -> Self {
        Self {
            identity,
            source,
            request,
            shell: None,
            once: None,
            preview: None,
            agreed: None,
            seen: Seen::default(),
            told: Told::default(),
        }
    }

    /// A part of the program itself.
    pub fn system(name: &'static str) -> Self {
        Self::new(Identity::System(name), None, None)
    }

    /// The operator's shell.
    pub fn shell(by: Shell) -> Self {
        let request = Some(by.request.clone());
        Self { request, shell: Some(by), ..Self::system("cli") }
    }

    /// A schedule that fires.
    pub fn schedule(id: ScheduleId, owner: UserId) -> Self {
        Self::new(Identity::Schedule { id, owner }, None, None)
    }

    /// Someone who has not signed in.
    pub fn anonymous(source: Option<IpAddr>, request: Option<String>) -> Self {
        Self::new(Identity::Anonymous, source, request)
    }

    /// The same caller without the request's idempotency key: for what is noted beside a refusal,
    /// which must not count as the key's one effect.
    #[must_use]
    pub fn aside(&self) -> Self {
        Self { once: None, ..self.clone() }
    }

    /// What a plan that was agreed on has picked.
    pub fn picks(&self) -> Option<&Picks> {
        self.agreed.as_ref().map(|agreed| &agreed.picks)
    }

    /// The user, unless it is nobody or a part of the program.
    pub fn user(&self) -> Option<UserId> {
        match self.identity {
            Identity::User { id, .. } => Some(id),
            Identity::Anonymous | Identity::Schedule { .. } | Identity::System(_) => None,
        }
    }

    /// The login session that was used.
    pub fn session(&self) -> Option<SessionId> {
        match self.identity {
            Identity::User { credential: CredentialUsed::Session(session), .. } => Some(session),
            _ => None,
        }
    }

    /// What the API token that was used may do; `None` when it was none.
    pub fn scopes(&self) -> Option<Scopes> {
        match self.identity {
            Identity::User { credential: CredentialUsed::ApiToken { may, .. }, .. } => Some(may),
            _ => None,
        }
    }

    /// The name in the log: `user/7`, `schedule/3`, `system/reconciler`, `anonymous`.
    pub fn name(&self) -> String {
        match self.identity {
            Identity::Anonymous => "anonymous".to_owned(),
            Identity::User { id, .. } => format!("user/{id}"),
            Identity::Schedule { id, .. } => format!("schedule/{id}"),
            Identity::System(name) => format!("system/{name}"),
        }
    }

    /// Tells callers apart for the writer's fair turns and for idempotency keys: strangers share one
    /// turn, and one set of keys, per address.
    pub fn lane(&self) -> String {
        match (&self.identity, self.source) {
            (Identity::Anonymous, Some(source)) => format!("anonymous/{source}"),
            _ => self.name(),
        }
    }

    /// The credential's id for the log: `session/<id>`, `token/<id>`, `shell/<account>`.
    pub fn credential(&self) -> Option<String> {
        if let Some(shell) = &self.shell {
            return Some(format!("shell/{}", shell.account));
        }
        match self.identity {
            Identity::User { credential: CredentialUsed::Session(id), .. } => {
                Some(format!("session/{id}"))
            }
            Identity::User { credential: CredentialUsed::ApiToken { id, .. }, .. } => {
                Some(format!("token/{id}"))
            }
            Identity::Anonymous | Identity::Schedule { .. } | Identity::System(_) => None,
        }
    }

    /// What stands beside each event of a command of this actor.
    pub fn metadata(&self, command: &'static str) -> Metadata {
        Metadata { actor: self.clone(), command, ..Metadata::default() }
    }
}

/// What showed who it is, of someone whose request came with no identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    Password,
    /// A token of this session.
    Session(SessionId),
}

/// The metadata of an append: a flat object of texts, so that the stock readers can load it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metadata {
    pub actor: Actor,
    /// Dotted name of what was asked for, e.g. `host.create`.
    pub command: &'static str,
    /// For whom the actor acts, when that is someone else.
    pub on_behalf_of: Option<UserId>,
    /// Whose thing it is about.
    pub owner: Option<UserId>,
    /// What all events of one endeavour share: an operation's id, or else the request's.
    pub correlation: Option<String>,
    /// What this append follows from: `request/…`, `operation/<id>/<sequence>`, `backup_run/7`.
    pub causation: Option<String>,
    /// Who somebody without an identity has turned out to be, and by what.
    pub proved: Option<(UserId, Proof)>,
}

impl Default for Metadata {
    fn default() -> Self {
        Self {
            actor: Actor::anonymous(None, None),
            command: "",
            on_behalf_of: None,
            owner: None,
            correlation: None,
            causation: None,
            proved: None,
        }
    }
}

impl Metadata {
    /// Says whose thing it is about.
    #[must_use]
    pub fn owned_by(mut self, owner: UserId) -> Self {
        self.owner = Some(owner);
        self
    }

    /// Says that it is about this user, and was done by the same one: up to then nobody, who has shown
    /// as much now. Whoever had an identity keeps it.
    #[must_use]
    pub fn proved(mut self, user: UserId, by: Proof) -> Self {
        self.owner = Some(user);
        self.proved = Some((user, by)).filter(|_| self.actor.identity == Identity::Anonymous);
        self
    }

    /// Says that it is about this user's thing, on whose behalf an admin or a schedule acts then.
    #[must_use]
    pub fn about(mut self, owner: UserId) -> Self {
        self.owner = Some(owner);
        self.on_behalf_of = match self.actor.identity {
            Identity::User { id, .. } => (id != owner).then_some(owner),
            Identity::Schedule { .. } => Some(owner),
            Identity::Anonymous => None,
            Identity::System(_) => self.on_behalf_of.map(|_| owner),
        };
        self
    }

    /// Says which endeavour it belongs to.
    #[must_use]
    pub fn correlated(mut self, id: impl ToString) -> Self {
        self.correlation = Some(id.to_string());
        self
    }

    /// The JSON object as it is stored; what is not known is left out.
    pub fn to_json(&self) -> String {
        // What came with a request follows from it, and belongs together, unless more is known.
        let request = self.actor.request.clone();
        let cause = request.as_ref().map(|request| format!("request/{request}"));
        // Whoever has shown nothing that is good acts in the name of whom it is about.
        let on_behalf_of = self.on_behalf_of.or(match (self.proved, &self.actor.identity) {
            (None, Identity::Anonymous) => self.owner,
            _ => None,
        });
        let (actor, credential) = match self.proved {
            None => (self.actor.name(), self.actor.credential()),
            Some((user, Proof::Password)) => (format!("user/{user}"), Some("password".to_owned())),
            Some((user, Proof::Session(id))) => {
                (format!("user/{user}"), Some(format!("session/{id}")))
            }
        };
        let address = self.actor.source.map(|source| source.to_string());
        let source = address.or_else(|| self.actor.shell.as_ref().map(|shell| shell.host.clone()));
        let fields = [
            ("actor", Some(actor)),
            ("command", Some(self.command.to_owned())),
            ("on_behalf_of", on_behalf_of.map(|user| user.to_string())),
            ("owner", self.owner.map(|user| user.to_string())),
            ("credential", credential),
            ("correlation", self.correlation.clone().or_else(|| request.clone())),
            ("causation", self.causation.clone().or(cause)),
            ("request", request),
            ("source", source),
        ];
        let object: serde_json::Map<String, serde_json::Value> = fields
            .into_iter()
            .filter_map(|(key, value)| Some((key.to_owned(), serde_json::Value::String(value?))))
            .collect();
        serde_json::Value::Object(object).to_string()
    }
}
