//! What a handler is given: who calls, with what, and typed doors to path, query and body.

use std::sync::Arc;

use bytes::Bytes;
use proximity_commands::once::OnceKey;
use proximity_commands::policy::Admin;
use proximity_commands::{Actor, Error};
use proximity_domain::UserId;
use serde::Deserialize as _;
use serde::de::DeserializeOwned;

use super::distinct::{self, Unclear};
use super::peer::Peer;
use super::problem::Problem;
use super::query;
use super::reply::Reply;
use super::route::CHANGED;
use super::tags;
use super::wording::{NO_WORD, Wrong};
use crate::app::{App, unavailable};

/// One request, read and authenticated; owned and `Send`, so that it can outlive its connection.
#[derive(Clone)]
pub struct Call {
    pub app: Arc<App>,
    pub actor: Actor,
    pub request_id: String,
    /// Parameters of the path by name, percent-decoded.
    pub params: Vec<(String, String)>,
    /// Without the `?`.
    pub query: String,
    pub body: Bytes,
    /// The verb and pattern of the route, e.g. `POST /api/apps`: the scope of idempotency keys.
    pub route: &'static str,
    /// The path as it was called.
    pub path: String,
    /// Name and port under which the client reached us.
    pub host: String,
    pub presented: Presented,
    /// The client at the other end of the connection.
    pub peer: Peer,
    /// How many times its idempotency key was refused before.
    pub refusals: u32,
}

/// Headers and cookies that handlers look at.
#[derive(Debug, Clone, Default)]
pub struct Presented {
    pub idempotency_key: Option<String>,
    pub if_match: Option<String>,
    /// The last message that a reader of a stream saw.
    pub last_event_id: Option<String>,
    /// The forms of an answer that the client can take.
    pub accept: Option<String>,
    /// What the client says it is.
    pub user_agent: Option<String>,
    /// The refresh cookie's value: a secret, so the only door to it hides it.
    pub refresh: Option<proximity_commands::Secret>,
    /// The access token, from the header or the cookie.
    pub access: Option<proximity_commands::Secret>,
    /// Some proxy says that it passed the request on.
    pub forwarded: bool,
    /// Whether answers that set cookies mark them `Secure`.
    pub secure: bool,
}

impl Call {
    /// A parameter of the path that parses as `T`; anything else is no id that was ever issued.
    pub fn param<T: std::str::FromStr>(&self, name: &str) -> Result<T, Problem> {
        self.params
            .iter()
            .find(|(key, _)| key == name)
            .and_then(|(_, value)| value.parse().ok())
            .ok_or_else(Problem::not_found)
    }

    /// The query as `T`: those of its parameters that `T` has; malformed ones are a 400.
    pub fn query<T: DeserializeOwned>(&self) -> Result<T, Problem> {
        query::read(&self.query)
    }

    /// The signed-in user.
    pub fn user(&self) -> Result<UserId, Problem> {
        self.actor.user().ok_or_else(|| Error::Unauthenticated.into())
    }

    /// Whose things a list is limited to: the caller's, unless the caller is an administrator.
    pub fn only_of(&self) -> Option<i64> {
        if Admin::prove(&self.actor).is_ok() {
            return None;
        }
        // Nobody has the number 0, so a list without an identity is empty.
        Some(self.actor.user().map_or(0, |user| user.0))
    }

    /// The caller's idempotency key for this very try.
    pub fn once(&self) -> Option<OnceKey> {
        let key = self.presented.idempotency_key.as_deref()?;
        let parts = [self.path.as_bytes(), self.query.as_bytes(), &self.body];
        let key = OnceKey {
            key: format!("{} {key}", self.route),
            fingerprint: self.app.fingerprint(&parts),
        };
        Some(key.after(self.refusals))
    }

    /// Refuses when an `If-Match` header names another state than the present one.
    pub async fn unchanged_since(
        &self,
        now: impl AsyncFnOnce() -> Result<Reply, Problem>,
    ) -> Result<(), Problem> {
        let Some(wanted) = &self.presented.if_match else { return Ok(()) };
        let head = self.app.store.head().await.map_err(unavailable)?;
        self.app.seen(head).await;
        if tags::matches_state(wanted, &tags::of(now().await?.bytes())) {
            // From here to the append nothing that is changed may move.
            self.actor.seen.set(head);
            Ok(())
        } else {
            Err(Problem::new(CHANGED, "it has changed since it was read"))
        }
    }

    /// The body as `T`.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Problem> {
        parse(&self.body)
    }

    /// The body as `T`, or its default when there is none.
    pub fn json_or_default<T: DeserializeOwned + Default>(&self) -> Result<T, Problem> {
        if self.body.is_empty() { Ok(T::default()) } else { parse(&self.body) }
    }
}

/// Syntax is 400; a value of the wrong kind or missing is 422 with a pointer to it.
fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    use serde_json::error::Category;
    let malformed = |error: &serde_json::Error| {
        let place = format!("line {}, column {}", error.line(), error.column());
        Problem::new("body.malformed", format!("the body is not valid JSON ({place})"))
    };
    if let Err(error) = std::str::from_utf8(body) {
        // Where nobody reads a text, the parser would not look at its bytes.
        let detail = format!("the body is not UTF-8 (byte {})", error.valid_up_to() + 1);
        return Err(Problem::new("body.malformed", detail));
    }
    // First all of it as JSON: a value that does not fit may stand before a text that is none.
    let mut parser = serde_json::Deserializer::from_slice(body);
    serde::de::IgnoredAny::deserialize(&mut parser)
        .and_then(|_| parser.end())
        .map_err(|error| malformed(&error))?;
    if body.trim_ascii_start().starts_with(b"[") {
        // Read by its order, a list would pass for an object whose fields it does not name.
        return Err(Problem::field("", "value.invalid", "the body is an object, not a list"));
    }
    match distinct::check(body) {
        Ok(()) => {}
        Err(Unclear::Twice(pointer)) => {
            let wrong = Wrong::Twice(pointer.rsplit('/').next().map(unescaped).unwrap_or_default());
            return Err(Problem::field(pointer, "value.invalid", wrong.sentence("the body")));
        }
        Err(Unclear::Unreadable(error)) => return Err(malformed(&error)),
    }
    let mut parser = serde_json::Deserializer::from_slice(body);
    serde_path_to_error::deserialize(&mut parser).map_err(|error| {
        let mut pointer = json_pointer(error.path());
        let inner = error.into_inner();
        let text = inner.to_string();
        match inner.classify() {
            Category::Syntax | Category::Eof | Category::Io if !text.starts_with(NO_WORD) => {
                malformed(&inner)
            }
            _ => {
                let wrong = Wrong::of(&text);
                if let Wrong::Missing(name) | Wrong::Twice(name) = &wrong {
                    let at_it = format!("/{}", escaped(name));
                    if !pointer.ends_with(&at_it) {
                        pointer.push_str(&at_it);
                    }
                }
                let name = pointer.rsplit('/').next().filter(|name| !name.is_empty());
                let detail = wrong.sentence(name.unwrap_or("the body"));
                Problem::field(pointer, "value.invalid", detail)
            }
        }
    })
}

pub(super) fn escaped(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

fn unescaped(key: &str) -> String {
    key.replace("~1", "/").replace("~0", "~")
}

fn json_pointer(path: &serde_path_to_error::Path) -> String {
    use serde_path_to_error::Segment;
    let mut pointer = String::new();
    for segment in path {
        match segment {
            Segment::Seq { index } => pointer.push_str(&format!("/{index}")),
            Segment::Map { key } | Segment::Enum { variant: key } => {
                pointer.push('/');
                pointer.push_str(&escaped(key));
            }
            Segment::Unknown => {}
        }
    }
    pointer
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    #[derive(Debug, serde::Deserialize)]
    struct Sample {
        #[expect(dead_code)]
        outer: Vec<Inner>,
    }

    #[derive(Debug, serde::Deserialize)]
    struct Inner {
        #[expect(dead_code)]
        number: u8,
    }

    #[test]
    fn a_body_that_is_not_json_is_a_400_and_one_that_does_not_fit_a_422_with_a_pointer() {
        for broken in ["", "{", "{\"outer\":[]} x", "\u{feff}{}", "{'a':1}"] {
            let problem = parse::<Sample>(broken.as_bytes()).unwrap_err();
            assert_eq!(
                (problem.status.as_u16(), problem.code),
                (400, "body.malformed"),
                "{broken}"
            );
        }
        let problem = parse::<Sample>(br#"{"outer":[{"number":1},{"number":300}]}"#).unwrap_err();
        assert_eq!(problem.status.as_u16(), 422);
        assert_eq!(problem.errors[0].pointer, "/outer/1/number");
        assert!(!problem.detail.contains("line"), "{}", problem.detail);
        let problem = parse::<Sample>(br"{}").unwrap_err();
        assert_eq!(problem.status.as_u16(), 422);
        assert_eq!((&*problem.errors[0].pointer, &*problem.detail), ("/outer", "outer is missing"));
    }

    #[test]
    fn a_value_that_does_not_fit_before_a_text_that_is_none_is_no_json() {
        for broken in ["{} {}", "{\"outer\":7", "{\"outer\":[{\"number\":300}]}]"] {
            assert_eq!(parse::<Sample>(broken.as_bytes()).unwrap_err().code, "body.malformed");
        }
    }

    #[test]
    fn what_does_not_fit_is_named_by_its_place_and_in_no_words_of_the_program() {
        for (body, pointer, detail) in [
            (r#"{"outer":[{}]}"#, "/outer/0/number", "number is missing"),
            (r#"{"outer":[],"outer":[]}"#, "/outer", "outer is there twice"),
            (r#"{"outer":[{"number":1,"number":2}]}"#, "/outer/0/number", "number is there twice"),
            (r#"{"outer":[],"else":{"a":1,"a":1}}"#, "/else/a", "a is there twice"),
            (r#"{"outer":[{"number":"x"}]}"#, "/outer/0/number", "number is a whole number"),
            (r#"{"outer":7}"#, "/outer", "outer is a list"),
            ("7", "", "the body is an object"),
            ("null", "", "the body is an object"),
        ] {
            let problem = parse::<Sample>(body.as_bytes()).unwrap_err();
            let field = &problem.errors[0];
            assert_eq!((&*field.pointer, &*field.detail), (pointer, detail), "{body}");
        }
    }

    #[test]
    fn a_body_that_is_not_utf_8_is_no_json_wherever_that_is() {
        for broken in
            [&b"{\"x\":\"\xff\"}"[..], b"{\"\xc3\":1}", b"{\"outer\":[],\"x\":[\"\xed\xa0\x80\"]}"]
        {
            let problem = parse::<Sample>(broken).unwrap_err();
            assert_eq!((problem.status.as_u16(), problem.code), (400, "body.malformed"));
            assert!(problem.detail.contains("UTF-8"), "{}", problem.detail);
        }
    }

    #[test]
    fn a_value_that_cannot_be_read_is_refused_where_nobody_reads_it_too() {
        let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
        for odd in ["1e999", r#""\ud800""#, &deep] {
            for rest in [r#""else":{"a":1,"a":2}"#, r#""else":{}"#] {
                let body = format!("{{\"outer\":[],\n\"x\":{odd},{rest}}}");
                let problem = parse::<Sample>(body.as_bytes()).unwrap_err();
                assert_eq!((problem.status.as_u16(), problem.code), (400, "body.malformed"));
                assert!(problem.detail.contains("line 2, column"), "{}", problem.detail);
            }
        }
    }

    #[test]
    fn a_list_is_no_object() {
        let problem = parse::<Sample>(br#" [[{"number":1}]]"#).unwrap_err();
        assert_eq!((problem.status.as_u16(), problem.code), (422, "value.invalid"));
        assert_eq!(parse::<Sample>(b"[1,").unwrap_err().code, "body.malformed");
    }

    #[test]
    fn nesting_deeper_than_the_limit_is_refused() {
        let deep = "[".repeat(100_000);
        let problem = parse::<serde_json::Value>(deep.as_bytes()).unwrap_err();
        assert_eq!(problem.code, "body.malformed");
    }
}
