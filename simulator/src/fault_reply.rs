//! How faults that come after the effect change or cut the reply.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, header};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Frame, SizeHint};
use serde_json::{Value, json};

use crate::fault::Fault;
use crate::gate::{Cut, body_for};
use crate::reply::{Outcome, Refusal, Response, with_body};

/// The body of a reply: whole, or one that breaks off.
pub(crate) type Answer = http_body_util::combinators::UnsyncBoxBody<Bytes, io::Error>;

pub(crate) fn whole(body: Full<Bytes>) -> Answer {
    body.map_err(|never: Infallible| match never {}).boxed_unsync()
}

/// The refusal of a scripted status, in the words that usually go with it.
pub(crate) fn status_refusal(status: u16, reason: Option<&str>) -> Refusal {
    let usual = match status {
        400 => "Parameter verification failed.",
        403 => "Permission check failed (/, Sys.Modify)",
        595 => "Connection refused",
        596 => "Broken pipe",
        599 => "Too many redirections",
        503 => "Service Unavailable",
        404 => "Not Found",
        _ => "got timeout",
    };
    let mut refusal = Refusal::new(status, reason.unwrap_or(usual));
    refusal.body = body_for(status);
    refusal
}

/// Applies what comes after the effect.
pub(crate) fn after_effect(
    fault: Option<&Fault>,
    outcome: &Outcome,
    response: Response,
) -> Result<hyper::Response<Answer>, Cut> {
    let data = outcome.as_ref().map_or(&Value::Null, |reply| &reply.data);
    let json_type = Some("application/json;charset=UTF-8");
    let replaced = match fault {
        Some(Fault::NoReplyAfterEffect | Fault::TaskDiesAfterDisks { unseen: true, .. }) => {
            return Err(Cut);
        }
        Some(Fault::CutMidBody) => return Ok(cut_in_the_middle(response)),
        Some(Fault::Status { status, reason, after_effect: true }) => {
            let refusal = status_refusal(*status, reason.as_deref());
            crate::reply::render(&Err(refusal), true)
        }
        Some(Fault::WrongTypes) => {
            let body = json!({ "data": twisted(data) }).to_string();
            with_body(200, "OK", json_type, Bytes::from(body))
        }
        Some(Fault::MalformedJson) => {
            let body = json!({ "data": data }).to_string();
            let half = body.len() / 2;
            let cut = (half..body.len()).find(|at| body.is_char_boundary(*at)).unwrap_or(half);
            with_body(200, "OK", json_type, Bytes::from(body[..cut].to_owned()))
        }
        Some(Fault::HtmlPage) => {
            let page = "<!DOCTYPE html>\n<html><head><title>Welcome</title></head>\
                        <body><h1>It works!</h1></body></html>\n";
            with_body(
                200,
                "OK",
                Some("text/html;charset=UTF-8"),
                Bytes::from_static(page.as_bytes()),
            )
        }
        Some(Fault::NullData) => {
            with_body(200, "OK", json_type, Bytes::from_static(b"{\"data\":null}"))
        }
        Some(Fault::EmptyList) => {
            with_body(200, "OK", json_type, Bytes::from_static(b"{\"data\":[]}"))
        }
        Some(Fault::HugeReply { bytes }) => {
            let body = format!("{{\"data\":\"{}\"}}", "x".repeat(*bytes));
            with_body(200, "OK", json_type, Bytes::from(body))
        }
        _ => response,
    };
    Ok(replaced.map(whole))
}

/// Swaps the types: a list becomes an object, an object a list, a text a number, a number a text.
fn twisted(data: &Value) -> Value {
    match data {
        Value::Null => json!({ "unexpected": true }),
        Value::Bool(flag) => json!(flag.to_string()),
        Value::Number(_) => json!("not a number"),
        Value::String(_) => json!(42),
        Value::Array(items) => {
            let members = items.iter().enumerate().map(|(n, item)| (n.to_string(), twisted(item)));
            Value::Object(members.collect())
        }
        Value::Object(members) => Value::Array(members.values().map(twisted).collect()),
    }
}

/// Announces the whole body and sends half of it.
fn cut_in_the_middle(response: Response) -> hyper::Response<Answer> {
    let (mut head, body) = response.into_parts();
    let length = body.size_hint().exact().unwrap_or(0);
    head.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    let broken = Broken { body, half: None, length, pause: None };
    hyper::Response::from_parts(head, broken.boxed_unsync())
}

/// A body that fails after its first half, once that half is on the wire.
struct Broken {
    body: Full<Bytes>,
    half: Option<()>,
    length: u64,
    pause: Option<Pin<Box<tokio::time::Sleep>>>,
}

impl Body for Broken {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let this = self.get_mut();
        if this.half.is_none() {
            this.half = Some(());
            let frame = Pin::new(&mut this.body).poll_frame(context);
            let Poll::Ready(Some(Ok(frame))) = frame else { return Poll::Pending };
            let bytes = frame.into_data().unwrap_or_default();
            return Poll::Ready(Some(Ok(Frame::data(bytes.slice(..bytes.len() / 2)))));
        }
        // The pause lets the server flush what it has before the error ends the connection.
        let pause = this
            .pause
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(Duration::from_millis(10))));
        match pause.as_mut().poll(context) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(()) => Poll::Ready(Some(Err(io::Error::other("cut by the fault script")))),
        }
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.length)
    }
}
