//! A cell of the matrix: one call by one caller with one id, and what has to come of it.

use proximity_server::http::route::Policy;
use reqwest::Method;
use serde_json::{Value, json};

use super::cast::{Cast, EVERYBODY, STATES, State, Who};
use super::table::{May, Row, Thing, Trial};

/// One call.
#[derive(Clone, Copy)]
pub struct Cell<'a> {
    pub row: &'a Row,
    pub who: Who,
    /// Which of the row's places is tried, and with what. None: all ids are the caller's own.
    pub place: Option<(usize, State)>,
}

/// What has to come of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// Anything but a refusal for want of rights.
    Allowed,
    /// Exactly this, and the same as for an id that never was.
    Refused(u16, &'static str),
    /// The very answer that an id gets which never was.
    Hidden,
    /// The answer for an id that never was: 404 for one in the path.
    Never,
    /// This status, whoever asks.
    Always(u16),
}

impl std::fmt::Display for Cell<'_> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{}", self.row.name)?;
        if !self.row.query.is_empty() {
            write!(out, "?{}", self.row.query)?;
        }
        write!(out, " by {:?}", self.who)?;
        match self.place {
            Some((place, state)) => write!(out, ", {} {state:?}", self.row.places[place].0),
            None => Ok(()),
        }
    }
}

/// All cells of a row.
pub fn of(row: &Row) -> Vec<Cell<'_>> {
    let in_path = row.places.iter().any(|(place, _)| !place.starts_with(['?', '/']));
    let mut cells = Vec::new();
    for who in EVERYBODY {
        if !in_path {
            cells.push(Cell { row, who, place: None });
        }
        for place in 0..row.places.len() {
            cells.extend(STATES.map(|state| Cell { row, who, place: Some((place, state)) }));
        }
    }
    cells
}

impl Cell<'_> {
    pub fn state(&self) -> Option<State> {
        self.place.map(|(_, state)| state)
    }

    /// The same with an id that never was; none when no id is tried.
    pub fn never(&self) -> Option<Self> {
        self.place.map(|(place, _)| Self { place: Some((place, State::Never)), ..*self })
    }

    /// What has to come of it.
    pub fn expected(&self) -> Expected {
        let (row, who) = (self.row, self.who);
        if let Some(status) = row.always {
            return Expected::Always(status);
        }
        match row.may {
            May::Anybody => {}
            _ if !who.is_known() => return Expected::Refused(401, "identity.required"),
            May::Person if who.is_program() => {
                return Expected::Refused(403, "api_token.not_accepted");
            }
            _ if who == Who::Reader && (row.may == May::Admin || !row.is_safe()) => {
                return Expected::Refused(403, "api_token.scope_missing");
            }
            May::Admin if who != Who::Admin => return Expected::Refused(403, "admin.required"),
            May::User | May::Person | May::Owner | May::Admin => {}
        }
        let Some((place, state)) = self.place else { return Expected::Allowed };
        let (thing, admin) = (row.places[place].1, who == Who::Admin);
        if state == State::Never {
            return Expected::Never;
        }
        match thing {
            Thing::Application
            | Thing::Operation
            | Thing::Request
            | Thing::Backup
            | Thing::Schedule => match state {
                State::Own => Expected::Allowed,
                State::Others if admin => Expected::Allowed,
                State::OwnGone if row.remembers => Expected::Allowed,
                State::OthersGone if row.remembers && admin => Expected::Allowed,
                _ => Expected::Hidden,
            },
            Thing::Session | Thing::Token if state == State::Own => Expected::Allowed,
            Thing::Session | Thing::Token => Expected::Hidden,
            Thing::Host if matches!(state, State::OwnGone | State::OthersGone) => Expected::Hidden,
            Thing::User | Thing::Host | Thing::Entry | Thing::Code => Expected::Allowed,
        }
    }

    /// Whether nothing may change by it.
    pub fn changes_nothing(&self) -> bool {
        self.expected() != Expected::Allowed || self.row.is_safe()
    }

    /// Whether an id that is tried stands in the path.
    pub fn is_in_path(&self) -> bool {
        self.place.is_some_and(|(place, _)| !self.row.places[place].0.starts_with(['?', '/']))
    }

    /// Whether the id that is tried is of something that everybody may know of.
    pub fn is_shared(&self) -> bool {
        let thing = self.place.map(|(place, _)| self.row.places[place].1);
        matches!(thing, Some(Thing::User | Thing::Host | Thing::Entry | Thing::Code))
    }

    /// The call: method, path with its query, headers, body.
    pub fn call(
        &self,
        cast: &Cast,
    ) -> (Method, String, Vec<(&'static str, String)>, Option<Value>) {
        let (row, who) = (self.row, self.who);
        let (method, path) = row.name.split_once(' ').unwrap();
        let (mut path, mut body) = (path.to_owned(), row.body.clone());
        let mut query: Vec<String> = Vec::new();
        query.extend((!row.query.is_empty()).then(|| row.query.to_owned()));
        for (part, value) in &row.filled {
            path = path.replace(&format!("{{{part}}}"), value);
        }
        for (number, (place, thing)) in row.places.iter().enumerate() {
            let tried = self.place.filter(|(tried, _)| *tried == number);
            let state = match (tried, self.place) {
                (Some((_, state)), _) => state,
                // What lies below a thing of somebody else is that one's, too; and an administrator
                // finds it there only.
                (None, Some((0, State::Others))) => State::Others,
                (None, Some((_, State::Others | State::OthersGone))) if who == Who::Admin => {
                    State::Others
                }
                (None, _) => State::Own,
            };
            let id = cast.id(*thing, state, who);
            if let Some(field) = place.strip_prefix('/') {
                // Numbers are numbers in a body.
                let id = id.parse::<i64>().map_or_else(|_| json!(id), |number| json!(number));
                if tried.is_some() {
                    body.as_mut().unwrap()[field] = id;
                }
            } else if let Some(name) = place.strip_prefix('?') {
                query.extend(tried.map(|_| format!("{name}={id}")));
            } else {
                path = path.replace(&format!("{{{place}}}"), &id);
            }
        }
        let mut headers = vec![("content-type", "application/json".to_owned())];
        headers.extend(cast.bearer(who).map(|token| ("authorization", format!("Bearer {token}"))));
        if self.expected() == Expected::Allowed {
            match row.trial {
                Trial::Real => {}
                Trial::Dry => query.push("dry_run=true".to_owned()),
                Trial::NoMatch => headers.push(("if-match", "\"never\"".to_owned())),
                Trial::CutOff => body = None,
            }
        }
        if !query.is_empty() {
            path = format!("{path}?{}", query.join("&"));
        }
        (Method::from_bytes(method.as_bytes()).unwrap(), path, headers, body)
    }

    /// Whether the body is sent cut off.
    pub fn is_cut_off(&self) -> bool {
        self.row.trial == Trial::CutOff && self.expected() == Expected::Allowed
    }
}

fn is_like_an_id(name: &str) -> bool {
    matches!(name, "id" | "app" | "actor" | "vmid") || name.ends_with("_id")
}

/// The fields of a schema, through its references.
fn fields(document: &Value, schema: &Value) -> Vec<String> {
    if let Some(name) = schema["$ref"].as_str().and_then(|name| name.rsplit('/').next()) {
        return fields(document, &document["components"]["schemas"][name]);
    }
    let mut names: Vec<String> = schema["properties"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, _)| name.clone())
        .collect();
    for parts in ["allOf", "oneOf", "anyOf"] {
        for part in schema[parts].as_array().into_iter().flatten() {
            names.extend(fields(document, part));
        }
    }
    names
}

fn policy(may: May) -> &'static [Policy] {
    match may {
        May::Anybody => &[Policy::Public, Policy::Optional],
        May::User => &[Policy::User],
        May::Person => &[Policy::Person],
        May::Owner => &[Policy::Owner],
        May::Admin => &[Policy::Admin],
    }
}

/// What of the document the rows do not cover, and the other way round.
pub fn uncovered(document: &Value, rows: &[Row]) -> Vec<String> {
    let mut complaints = Vec::new();
    let mut known = Vec::new();
    for (path, verbs) in document["paths"].as_object().unwrap() {
        for (verb, operation) in verbs.as_object().unwrap() {
            let name = format!("{} {path}", verb.to_uppercase());
            let of_call: Vec<&Row> = rows.iter().filter(|row| row.name == name).collect();
            if of_call.is_empty() {
                complaints.push(format!("{name} has no row in server/tests/api/matrix/table.rs"));
                continue;
            }
            let mut ids: Vec<(String, bool)> = Vec::new();
            for parameter in operation["parameters"].as_array().into_iter().flatten() {
                let text = |field: &str| parameter[field].as_str().unwrap().to_owned();
                match text("in").as_str() {
                    "path" => ids.push((text("name"), true)),
                    "query" => {
                        ids.push((format!("?{}", text("name")), is_like_an_id(&text("name"))))
                    }
                    _ => {}
                }
            }
            let body = &operation["requestBody"]["content"]["application/json"]["schema"];
            let in_body = fields(document, body);
            ids.extend(in_body.iter().map(|name| (format!("/{name}"), is_like_an_id(name))));
            for row in of_call {
                let has = |place: &str| {
                    row.places.iter().any(|(known, _)| *known == place)
                        || row.filled.iter().any(|(part, _)| *part == place)
                        || row.no_ids.contains(&place.trim_start_matches(['?', '/']))
                };
                for (place, is_id) in &ids {
                    if *is_id && !has(place) {
                        complaints.push(format!("{name}: no cell tries an id at {place}"));
                    }
                }
                for (place, _) in &row.places {
                    if !ids.iter().any(|(known, _)| known == place) {
                        complaints.push(format!("{name}: the document has no {place}"));
                    }
                }
                if !in_body.is_empty() && row.body.is_none() {
                    complaints.push(format!("{name}: its row has no body"));
                }
                let told = operation["x-policy"].as_str().unwrap_or_default();
                let same = |policy: &Policy| format!("{policy:?}").to_lowercase() == told;
                if !policy(row.may).iter().any(same) {
                    complaints.push(format!("{name}: for {:?}, the document says {told}", row.may));
                }
            }
            known.push(name);
        }
    }
    for row in rows.iter().filter(|row| !known.iter().any(|name| name == row.name)) {
        complaints.push(format!("{}: the document has no such call", row.name));
    }
    complaints
}
