//! Login, tickets, CSRF tokens, API tokens and certificates.

use std::time::{Duration, Instant};

use proximity_simulator::{Presented, Simulator, SimulatorConfig};
use reqwest::Method;
use serde_json::json;

use crate::support::{Caller, Credential, got, quick, with};

#[tokio::test]
async fn a_wrong_login_is_refused_late_and_in_the_recorded_words() {
    let delay = Duration::from_millis(300);
    let config = SimulatorConfig { auth_delay: delay, ..SimulatorConfig::quick() };
    let sim = Simulator::start(config).await.unwrap();
    let caller = Caller::anonymous(&sim);
    for user in ["root@pam", "nobody@pve", "root@nope", "root"] {
        let asked = Instant::now();
        let got = caller
            .post("/access/ticket", &[("username", user), ("password", "certainly wrong")])
            .await;
        got.refused(401, "authentication failure");
        assert!(asked.elapsed() >= delay, "{user} was refused after {:?}", asked.elapsed());
    }
    let got = caller.post("/access/ticket", &[("username", "root@pam")]).await;
    assert_eq!(got.error("password"), "property is missing and it is not optional");
    let asked = Instant::now();
    let got = caller.get("/nodes").await;
    assert_eq!((got.status, got.reason.as_str(), got.text.as_str()), (401, "No ticket", ""));
    assert!(asked.elapsed() >= delay);
}

#[tokio::test]
async fn the_default_delay_is_three_seconds() {
    let config = SimulatorConfig::default();
    assert_eq!(config.auth_delay, Duration::from_secs(3));
    assert_eq!(config.lock_wait, Duration::from_secs(10));
    assert_eq!(config.workers, 3);
}

#[tokio::test]
async fn a_ticket_works_in_cookie_and_header_and_renews_itself_for_two_hours() {
    let (sim, root) = quick().await;
    let Credential::Ticket { ticket, csrf } = root.credential.clone() else { unreachable!() };
    assert!(ticket.starts_with("PVE:root@pam:"));
    assert_eq!(root.get("/version").await.data()["version"], "9.1.7");
    assert_eq!(root.get("/version").await.data()["release"], "9.1");
    let header = root
        .http
        .get(format!("{}/api2/json/nodes", root.base))
        .header("Authorization", format!("PVEAuthCookie={ticket}"));
    assert_eq!(got(header).await.unwrap().status, 200);
    sim.set_clock_offset(119 * 60);
    assert_eq!(root.get("/nodes").await.status, 200);
    let renewed =
        root.post("/access/ticket", &[("username", "root@pam"), ("password", &ticket)]).await;
    assert_ne!(renewed.data()["ticket"], json!(ticket));
    sim.set_clock_offset(121 * 60);
    let late = root.get("/nodes").await;
    assert_eq!((late.status, late.reason.as_str()), (401, "Authentication failed!"));
    let again =
        root.post("/access/ticket", &[("username", "root@pam"), ("password", &ticket)]).await;
    again.refused(401, "authentication failure");
    let fresh = Caller {
        credential: Credential::Ticket {
            ticket: renewed.data()["ticket"].as_str().unwrap().to_owned(),
            csrf,
        },
        ..root.clone()
    };
    assert_eq!(fresh.get("/nodes").await.status, 200);
    let stale = fresh.post("/pools", &[("poolid", "pp")]).await;
    assert_eq!(stale.reason, "Permission denied - invalid csrf token");
    sim.set_clock_offset(-6 * 60);
    assert_eq!(root.get("/nodes").await.status, 401);
    sim.shutdown().await;
}

#[tokio::test]
async fn a_write_with_a_ticket_needs_the_csrf_token_and_one_with_an_api_token_does_not() {
    let (sim, root) = quick().await;
    let Credential::Ticket { ticket, .. } = root.credential.clone() else { unreachable!() };
    for csrf in ["", "6B04A000:wrong"] {
        let caller = Caller {
            credential: Credential::Ticket { ticket: ticket.clone(), csrf: csrf.to_owned() },
            ..root.clone()
        };
        let got = caller.post("/pools", &[("poolid", "pp")]).await;
        assert_eq!(
            (got.status, got.reason.as_str()),
            (401, "Permission denied - invalid csrf token")
        );
        assert_eq!(got.text, "");
    }
    let token = sim.add_token("root@pam", "full", false).unwrap();
    let caller = Caller::token(&sim, &token);
    assert_eq!(caller.post("/pools", &[("poolid", "pp")]).await.status, 200);
    let got = caller.post("/access/ticket", &[("username", "root@pam"), ("password", "x")]).await;
    assert_eq!(got.status, 403);
    assert_eq!(
        got.reason,
        "Permission check failed (URI '/access/ticket' not available with API token, need proper ticket."
    );
    let wrong = Caller::token(&sim, "root@pam!full=00000000-0000-0000-0000-000000000000");
    assert_eq!(wrong.get("/version").await.reason, "Authentication failed!");
    let bearer = root.http.get(format!("{}/api2/json/version", root.base));
    let got = crate::support::got(bearer.header("Authorization", "Bearer x")).await.unwrap();
    assert_eq!((got.status, got.reason.as_str()), (401, "No ticket"));
}

#[tokio::test]
async fn the_older_age_says_everything_in_the_reason_phrase_only() {
    let config = SimulatorConfig { message_in_body: false, ..SimulatorConfig::quick() };
    let (_sim, root) = with(config).await;
    let got = root.get("/nodes/pve1/lxc/100/config").await;
    assert_eq!(got.reason, "Configuration file 'nodes/pve1/lxc/100.conf' does not exist");
    assert_eq!(got.text, r#"{"data":null}"#);
    let got = root.post("/nodes/pve1/lxc", &[("vmid", "99")]).await;
    assert_eq!(got.error("ostemplate"), "property is missing and it is not optional");
    assert!(got.body.get("message").is_none());
}

#[tokio::test]
async fn the_certificate_can_be_changed_and_a_caller_that_does_not_trust_it_sends_nothing() {
    let (sim, _root) = quick().await;
    let before = sim.requests_seen();
    let original = sim.fingerprint();
    assert_eq!(original.len(), 95);
    let foreign = sim.set_cert(Presented::Foreign).unwrap();
    assert_ne!(foreign, original);
    let caller = Caller::token(&sim, "root@pam!x=secret");
    for what in [
        Presented::Foreign,
        Presented::Expired,
        Presented::OriginalBehindForeign,
        Presented::StolenCertificate,
    ] {
        sim.set_cert(what).unwrap();
        let sent = got(caller.request(Method::GET, "/version")).await;
        assert!(sent.is_err(), "{what:?} was trusted");
    }
    // The host learns of the last broken handshake a moment after the caller gave it up.
    let noticed = async {
        while sim.requests_seen().handshakes_failed < before.handshakes_failed + 4 {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), noticed).await.unwrap();
    let after = sim.requests_seen();
    assert_eq!(after.credentials, before.credentials);
    assert_eq!(after.requests.len(), before.requests.len());
    sim.set_cert(Presented::Renewed).unwrap();
    assert_ne!(sim.fingerprint(), original);
    assert_eq!(caller.get("/version").await.status, 401);
    assert_eq!(sim.set_cert(Presented::Original).unwrap(), original);
    let seen = sim.requests_seen();
    assert_eq!(seen.credentials, before.credentials + 1, "the token itself arrived and was seen");
    assert!(seen.requests.last().unwrap().credential);
}
