//! Where a request comes from: its client's address and scheme behind proxies, its page's origin.

use std::net::IpAddr;

use actix_web::HttpRequest;
use actix_web::http::header::{self, HeaderMap, HeaderName};
use ipnet::IpNet;

use super::problem::Problem;
use crate::config;

/// What is known of the request's way to us.
#[derive(Debug, Clone)]
pub struct Via {
    pub client: Option<IpAddr>,
    pub https: bool,
    /// Host and port as the client wrote them.
    pub host: String,
}

impl Via {
    /// Reads the headers of proxies only when the neighbour is one that we trust.
    pub fn of(request: &HttpRequest, config: &config::Server) -> Self {
        let peer = request.peer_addr().map(|address| address.ip());
        let own_host = text(request.headers(), &header::HOST)
            .or_else(|| request.uri().authority().map(|a| a.as_str().to_owned()))
            .unwrap_or_default();
        let tls = config.tls_certificate.is_some()
            || config.public_url.as_ref().is_some_and(|url| url.scheme() == "https");
        if !peer.is_some_and(|peer| trusted(peer, &config.trusted_proxies)) {
            return Self { client: peer, https: tls, host: own_host };
        }
        let forwarded = text(request.headers(), &HeaderName::from_static("x-forwarded-proto"));
        let https = forwarded.map_or(tls, |scheme| scheme.eq_ignore_ascii_case("https"));
        Self {
            client: client_behind(request.headers(), &config.trusted_proxies).or(peer),
            https,
            host: own_host,
        }
    }

    /// Whether a page of this origin may change things here.
    pub fn allows(&self, origin: &str, config: &config::Server) -> bool {
        let scheme = if self.https { "https" } else { "http" };
        // A browser leaves the scheme's own port out on both sides.
        origin.eq_ignore_ascii_case(&format!("{scheme}://{}", self.host))
            || config
                .public_url
                .as_ref()
                .is_some_and(|url| url.origin().ascii_serialization().eq_ignore_ascii_case(origin))
            || config.cors_origins.iter().any(|allowed| allowed.eq_ignore_ascii_case(origin))
    }

    /// Refuses a page's unsafe request unless its origin is ours or configured; `null` is neither.
    pub fn require(&self, origin: Option<&str>, config: &config::Server) -> Result<(), Problem> {
        match origin {
            Some(origin) if !self.allows(origin, config) => Err(Problem::new(
                "origin.refused",
                "requests from pages of this origin are refused",
            )),
            _ => Ok(()),
        }
    }
}

/// The rightmost address of `X-Forwarded-For` that is no proxy of ours.
fn client_behind(headers: &HeaderMap, proxies: &[IpNet]) -> Option<IpAddr> {
    let name = HeaderName::from_static("x-forwarded-for");
    let chain: Vec<&str> = headers
        .get_all(name)
        .flat_map(|value| value.to_str().unwrap_or("unreadable").split(','))
        .map(str::trim)
        .collect();
    // An entry that is no address was not written by a proxy of ours: nothing left of it counts.
    let mut trustworthy = chain.into_iter().rev().map_while(|entry| entry.parse::<IpAddr>().ok());
    trustworthy.find(|address| !trusted(*address, proxies))
}

fn trusted(address: IpAddr, proxies: &[IpNet]) -> bool {
    proxies.iter().any(|network| network.contains(&address.to_canonical()))
}

/// A header that is one text, or nothing.
pub fn text(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use actix_web::test::TestRequest;

    use super::*;

    fn server(proxies: &[&str]) -> config::Server {
        let mut server = config::Config::default().server;
        server.trusted_proxies = proxies.iter().map(|p| p.parse().unwrap()).collect();
        server.cors_origins = vec!["https://app.example".to_owned()];
        server
    }

    fn via(peer: &str, headers: &[(&'static str, &str)], server: &config::Server) -> Via {
        let mut request = TestRequest::default().peer_addr(peer.parse().unwrap());
        for (name, value) in headers {
            request = request.insert_header((*name, *value));
        }
        Via::of(&request.to_http_request(), server)
    }

    #[test]
    fn forwarding_headers_of_strangers_are_not_believed() {
        let forwarded = [("x-forwarded-for", "9.9.9.9"), ("x-forwarded-proto", "https")];
        let stranger = via("203.0.113.5:1", &forwarded, &server(&["10.0.0.0/8"]));
        assert_eq!(stranger.client, Some("203.0.113.5".parse().unwrap()));
        assert!(!stranger.https);
    }

    #[test]
    fn the_client_is_the_last_address_that_is_no_proxy_of_ours() {
        let forged =
            [("x-forwarded-for", "1.1.1.1, 9.9.9.9, 10.0.0.2"), ("x-forwarded-proto", "https")];
        let behind = via("10.0.0.1:1", &forged, &server(&["10.0.0.0/8"]));
        assert_eq!(behind.client, Some("9.9.9.9".parse().unwrap()));
        assert!(behind.https);
        let garbage = [("x-forwarded-for", "1.1.1.1, nonsense, 10.0.0.2")];
        let behind = via("10.0.0.1:1", &garbage, &server(&["10.0.0.0/8"]));
        assert_eq!(behind.client, Some("10.0.0.1".parse().unwrap()));
    }

    #[test]
    fn only_our_own_and_configured_origins_may_change_things() {
        let server = server(&[]);
        let ours = via("127.0.0.1:1", &[("host", "127.0.0.1:7800")], &server);
        assert!(ours.require(None, &server).is_ok());
        assert!(ours.require(Some("http://127.0.0.1:7800"), &server).is_ok());
        assert!(ours.require(Some("https://app.example"), &server).is_ok());
        for refused in [
            "null",
            "https://127.0.0.1:7800",
            "http://127.0.0.1:7801",
            "https://app.example.evil",
            "",
        ] {
            assert!(ours.require(Some(refused), &server).is_err(), "{refused}");
        }
    }
}
