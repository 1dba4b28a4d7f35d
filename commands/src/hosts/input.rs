//! A host as a person enters it, and what a change of one leaves in force.

use proximity_domain::host::{Auth, Connection, Fingerprint};
use proximity_domain::{Port, SecretId, ValueError};
use uuid::Uuid;

use crate::error::{Error, FieldError};
use crate::secret::Secret;

/// Whose credential it is when nobody says.
pub const DEFAULT_USER: &str = "root@pam";

/// A new host. Printing it shows no secret.
#[derive(Debug, Clone)]
pub struct HostInput {
    pub name: String,
    /// Host name or IP address.
    pub host: String,
    pub port: i64,
    pub user: String,
    pub password: Option<Secret>,
    pub token_id: Option<String>,
    pub token_secret: Option<Secret>,
    pub verify_ssl: bool,
    pub fingerprint: Option<String>,
    pub ssh_port: i64,
    pub is_default: bool,
}

/// Any subset of a host's fields.
#[derive(Debug, Clone, Default)]
pub struct HostChange {
    pub name: Option<String>,
    pub host: Option<String>,
    pub port: Option<i64>,
    pub user: Option<String>,
    /// Empty keeps the old one.
    pub password: Option<Secret>,
    pub token_id: Option<String>,
    pub token_secret: Option<Secret>,
    pub verify_ssl: Option<bool>,
    pub fingerprint: Option<String>,
    pub ssh_port: Option<i64>,
    pub is_active: Option<bool>,
    pub is_default: Option<bool>,
}

impl HostInput {
    /// Every field that is wrong is named.
    pub(super) fn parse(&self) -> Result<(Connection, Secret), Error> {
        let mut wrong = Wrong::default();
        let name = wrong.note("name", name(&self.name));
        let address = wrong.note("host", address(&self.host));
        let port = wrong.note("port", Port::try_from(self.port));
        let ssh_port = wrong.note("ssh_port", Port::try_from(self.ssh_port));
        let asked = (self.user != DEFAULT_USER).then_some(self.user.as_str());
        let owner = owner(asked, self.token_id.as_deref(), &mut wrong);
        let user = wrong.note("user", user(owner.unwrap_or(DEFAULT_USER)));
        let fingerprint = wrong.note("fingerprint", fingerprint(self.fingerprint.as_deref()));
        let credential = credential(&self.password, &self.token_id, &self.token_secret);
        let credential = match credential {
            Ok(Some(credential)) => Some(credential),
            Ok(None) => {
                wrong.add(
                    "password",
                    "host.credential_required",
                    "a password or a token is needed",
                );
                None
            }
            Err((field, detail)) => {
                wrong.add(field, "host.credential_invalid", detail);
                None
            }
        };
        let parts = (name, address, port, ssh_port, user, fingerprint, credential);
        let (
            Some(name),
            Some(address),
            Some(port),
            Some(ssh_port),
            Some(user),
            Some(fingerprint),
            Some((auth, secret)),
        ) = parts
        else {
            return Err(Error::Invalid(wrong.0));
        };
        if !wrong.0.is_empty() {
            return Err(Error::Invalid(wrong.0));
        }
        let connection = Connection {
            name,
            address,
            port,
            user,
            auth,
            // Replaced by the record that the secret is sealed into.
            credential: SecretId(Uuid::nil()),
            verify_ssl: self.verify_ssl,
            fingerprint,
            ssh_port,
        };
        Ok((connection, secret))
    }
}

impl HostChange {
    /// Whether a new credential was sent.
    pub(super) fn has_secret(&self) -> bool {
        [&self.password, &self.token_secret]
            .into_iter()
            .flatten()
            .any(|secret| !secret.expose().is_empty())
    }

    /// The connection that the change leaves, and the new credential if one was sent.
    pub(super) fn apply(&self, old: &Connection) -> Result<(Connection, Option<Secret>), Error> {
        let mut wrong = Wrong::default();
        let mut new = old.clone();
        if let Some(text) = &self.name {
            new.name = wrong.note("name", name(text)).unwrap_or_default();
        }
        if let Some(text) = &self.host {
            new.address = wrong.note("host", address(text)).unwrap_or_default();
        }
        let owner = owner(self.user.as_deref(), self.token_id.as_deref(), &mut wrong);
        if let Some(text) = owner {
            new.user = wrong.note("user", user(text)).unwrap_or_default();
        }
        if let Some(port) = self.port {
            new.port = wrong.note("port", Port::try_from(port)).unwrap_or(old.port);
        }
        if let Some(port) = self.ssh_port {
            new.ssh_port = wrong.note("ssh_port", Port::try_from(port)).unwrap_or(old.ssh_port);
        }
        if let Some(verify) = self.verify_ssl {
            new.verify_ssl = verify;
        }
        if let Some(text) = &self.fingerprint {
            new.fingerprint = wrong.note("fingerprint", fingerprint(Some(text))).flatten();
        }
        if new.address != old.address && self.fingerprint.is_none() {
            // Another machine shows another certificate.
            new.fingerprint = None;
        }
        let secret = match credential(&self.password, &self.token_id, &self.token_secret) {
            Ok(Some((auth, secret))) => {
                new.auth = auth;
                Some(secret)
            }
            Ok(None) => None,
            Err((field, detail)) => {
                wrong.add(field, "host.credential_invalid", detail);
                None
            }
        };
        if wrong.0.is_empty() { Ok((new, secret)) } else { Err(Error::Invalid(wrong.0)) }
    }
}

#[derive(Default)]
struct Wrong(Vec<FieldError>);

impl Wrong {
    fn note<T>(&mut self, field: &str, parsed: Result<T, ValueError>) -> Option<T> {
        match parsed {
            Ok(value) => Some(value),
            Err(error) => {
                self.add(field, error.code, &error.message);
                None
            }
        }
    }

    fn add(&mut self, field: &str, code: &'static str, detail: &str) {
        self.0.push(FieldError { field: field.to_owned(), code, detail: detail.to_owned() });
    }
}

fn refuse<T>(code: &'static str, message: &str) -> Result<T, ValueError> {
    Err(ValueError { code, message: message.to_owned() })
}

fn name(text: &str) -> Result<String, ValueError> {
    let text = text.trim();
    if (1..=100).contains(&text.chars().count()) && !text.chars().any(char::is_control) {
        Ok(text.to_owned())
    } else {
        refuse("host.name_invalid", "a name has 1 to 100 characters")
    }
}

/// A host name or an IP address, nothing that could be read as a path, a port or a user.
fn address(text: &str) -> Result<String, ValueError> {
    let text = text.trim();
    let inner = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let is_ip = inner.parse::<std::net::IpAddr>().is_ok();
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if is_ip || (text.len() <= 253 && text.split('.').all(label)) {
        Ok(inner.to_ascii_lowercase())
    } else {
        refuse("host.address_invalid", "an address is a host name or an IP address, without a port")
    }
}

/// `name@realm`, as Proxmox writes it.
fn user(text: &str) -> Result<String, ValueError> {
    let valid = text
        .split_once('@')
        .is_some_and(|(name, realm)| !name.is_empty() && !realm.is_empty() && !realm.contains('@'));
    let plain = text.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'!' | b':' | b'/'));
    if valid && plain && text.len() <= 64 {
        Ok(text.to_owned())
    } else {
        refuse("host.user_invalid", "a user is written like root@pam")
    }
}

fn fingerprint(text: Option<&str>) -> Result<Option<Fingerprint>, ValueError> {
    text.filter(|text| !text.trim().is_empty()).map(|text| text.trim().parse()).transpose()
}

/// The user who was named, or whose a token is that is written with its user.
fn owner<'t>(asked: Option<&'t str>, token: Option<&'t str>, wrong: &mut Wrong) -> Option<&'t str> {
    let of_token = token.and_then(|id| id.rsplit_once('!')).map(|(user, _)| user);
    match (asked, of_token) {
        (Some(asked), Some(of_token)) if asked != of_token => {
            let detail = "this token belongs to another user than `user`";
            wrong.add("token_id", "host.credential_invalid", detail);
            Some(asked)
        }
        (asked, of_token) => of_token.or(asked),
    }
}

type Sent = Result<Option<(Auth, Secret)>, (&'static str, &'static str)>;

/// A password or a whole token; an empty password counts as none.
fn credential(password: &Option<Secret>, id: &Option<String>, secret: &Option<Secret>) -> Sent {
    let set = |secret: &&Secret| !secret.expose().is_empty();
    let password = password.as_ref().filter(set);
    let secret = secret.as_ref().filter(set);
    let id = id.as_deref().filter(|id| !id.is_empty());
    match (password, id, secret) {
        (Some(_), Some(_), _) | (Some(_), _, Some(_)) => {
            Err(("password", "send either a password or a token, not both"))
        }
        (Some(password), None, None) => Ok(Some((Auth::Password, password.clone()))),
        (None, Some(id), Some(secret)) => {
            // Both spellings are common: `proximity` and `root@pam!proximity`.
            let name = id.rsplit('!').next().unwrap_or(id).to_owned();
            let valid = name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b));
            if name.is_empty() || !valid {
                return Err((
                    "token_id",
                    "a token's name consists of letters, digits, '_', '.' and '-'",
                ));
            }
            Ok(Some((Auth::Token { id: name }, secret.clone())))
        }
        (None, Some(_), None) => Err(("token_secret", "a token needs its secret")),
        (None, None, Some(_)) => Err(("token_id", "a token's secret needs the token's id")),
        (None, None, None) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    fn with_token(user: &str, id: &str) -> Result<(String, Auth), &'static str> {
        let input = HostInput {
            name: "lab".into(),
            host: "pve1.lan".into(),
            port: 8006,
            user: user.into(),
            password: None,
            token_id: Some(id.into()),
            token_secret: Some(Secret::new("x".to_owned())),
            verify_ssl: false,
            fingerprint: None,
            ssh_port: 22,
            is_default: false,
        };
        let (connection, _) = input.parse().map_err(|error| error.code())?;
        let change = HostChange {
            user: (user != DEFAULT_USER).then(|| user.into()),
            token_id: Some(id.into()),
            token_secret: Some(Secret::new("x".to_owned())),
            ..HostChange::default()
        };
        let changed = change.apply(&connection).unwrap().0;
        assert_eq!((&changed.user, &changed.auth), (&connection.user, &connection.auth));
        Ok((connection.user, connection.auth))
    }

    #[test]
    fn a_token_that_is_written_with_its_user_says_whose_it_is() {
        let server = Auth::Token { id: "server".into() };
        let whole = with_token(DEFAULT_USER, "proximity@pve!server");
        assert_eq!(whole, Ok(("proximity@pve".into(), server.clone())));
        let apart = with_token("proximity@pve", "server");
        assert_eq!(apart, Ok(("proximity@pve".into(), server.clone())));
        assert_eq!(with_token(DEFAULT_USER, "server"), Ok(("root@pam".into(), server)));
        let others = with_token("ann@pve", "proximity@pve!server");
        assert_eq!(others, Err("host.credential_invalid"));
    }
}
