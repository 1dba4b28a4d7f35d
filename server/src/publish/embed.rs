//! The embedded view: HTTP passed on, the headers that forbid framing taken off the answers.

use std::io;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::copy_bidirectional;
use tokio::net::TcpStream;

use super::{Target, forward};

type Body = BoxBody<Bytes, hyper::Error>;

/// Serves one connection until either side has had enough.
pub(super) async fn serve(stream: TcpStream, target: Target) -> io::Result<()> {
    let answer = service_fn(move |request| {
        let target = target.clone();
        async move { Ok::<_, std::convert::Infallible>(pass(request, &target).await) }
    });
    hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(std::time::Duration::from_secs(30))
        .serve_connection(TokioIo::new(stream), answer)
        .with_upgrades()
        .await
        .map_err(io::Error::other)
}

/// One request, on a connection of its own: containers are near, and nothing is shared by mistake.
async fn pass(request: Request<Incoming>, target: &Target) -> Response<Body> {
    match forwarded(request, target).await {
        Ok(response) => response,
        Err(error) => {
            tracing::debug!(application = target.application, %error, "no answer from a container");
            let text = Full::new(Bytes::from_static(b"the application does not answer\n"));
            let mut response = Response::new(text.map_err(|never| match never {}).boxed());
            *response.status_mut() = StatusCode::BAD_GATEWAY;
            response
        }
    }
}

async fn forwarded(mut request: Request<Incoming>, target: &Target) -> io::Result<Response<Body>> {
    let stream = forward::connect(target).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(io::Error::other)?;
    let driver = tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "a container's connection ended early");
        }
    });
    let client_side = hyper::upgrade::on(&mut request);
    if request.version() == http::Version::HTTP_10 {
        *request.version_mut() = http::Version::HTTP_11;
    }
    if !request.headers().contains_key(header::HOST)
        && let Ok(host) = HeaderValue::from_str(&target.to.to_string())
    {
        request.headers_mut().insert(header::HOST, host);
    }
    let mut response = sender.send_request(request).await.map_err(io::Error::other)?;
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        let container_side = hyper::upgrade::on(&mut response);
        tokio::spawn(async move {
            // WebSockets and the like: from here on it is bytes, and this task ends with them.
            if let (Ok(client), Ok(container)) = (client_side.await, container_side.await)
                && let Err(error) =
                    copy_bidirectional(&mut TokioIo::new(client), &mut TokioIo::new(container))
                        .await
            {
                tracing::debug!(%error, "an upgraded connection ended early");
            }
            driver.abort();
        });
    }
    allow_framing(response.headers_mut());
    Ok(response.map(|body| body.boxed()))
}

/// Takes off `X-Frame-Options`, and `frame-ancestors` from the content security policies.
fn allow_framing(headers: &mut HeaderMap) {
    headers.remove(header::X_FRAME_OPTIONS);
    for name in [header::CONTENT_SECURITY_POLICY, header::CONTENT_SECURITY_POLICY_REPORT_ONLY] {
        let policies: Vec<HeaderValue> =
            headers.get_all(&name).iter().filter_map(without_ancestors).collect();
        headers.remove(&name);
        for policy in policies {
            headers.append(name.clone(), policy);
        }
    }
}

/// The policies without that one directive; nothing when nothing else was said.
fn without_ancestors(value: &HeaderValue) -> Option<HeaderValue> {
    // One that cannot be read is kept as it is: dropping it would loosen more than was asked for.
    let Ok(text) = value.to_str() else { return Some(value.clone()) };
    let policies: Vec<String> = text
        .split(',')
        .map(|policy| {
            let kept: Vec<&str> = policy
                .split(';')
                .map(str::trim)
                .filter(|directive| {
                    let name = directive.split_whitespace().next().unwrap_or_default();
                    !name.is_empty() && !name.eq_ignore_ascii_case("frame-ancestors")
                })
                .collect();
            kept.join("; ")
        })
        .filter(|policy| !policy.is_empty())
        .collect();
    if policies.is_empty() { None } else { HeaderValue::from_str(&policies.join(", ")).ok() }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    #[test]
    fn only_what_forbids_framing_is_taken_off() {
        let mut headers = HeaderMap::new();
        headers.insert("x-frame-options", HeaderValue::from_static("DENY"));
        let csp = "content-security-policy";
        headers.append(csp, HeaderValue::from_static("default-src 'self'; Frame-Ancestors 'none'"));
        headers.append(csp, HeaderValue::from_static("frame-ancestors 'none'"));
        headers.append(csp, HeaderValue::from_static("img-src *, frame-ancestors a; script-src b"));
        headers.insert("x-other", HeaderValue::from_static("stays"));
        allow_framing(&mut headers);
        assert!(!headers.contains_key("x-frame-options"));
        let kept: Vec<_> = headers.get_all(csp).iter().map(|v| v.to_str().unwrap()).collect();
        assert_eq!(kept, ["default-src 'self'", "img-src *, script-src b"]);
        assert_eq!(headers["x-other"], "stays");
    }
}
