//! Tickets and tokens: got once, renewed in time, replaced after a 401, never repeated in a text.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use proximity_commands::Secret;
use proximity_commands::ports::{Credential, Hypervisor, HypervisorError};
use proximity_domain::{NodeName, Vmid};
use proximity_proxmox::{Limits, PveClient};

use crate::server::{Act, Seen, Server, data, limits, random_secret, refusal, ticket};

const VERSION: &str = r#"{"version":"9.1.7","release":"9.1","repoid":"0307225d"}"#;
const START: &str = r#""UPID:pve1:00000271:0005EA12:6B049FDA:vzstart:100:root@pam:""#;

fn node() -> NodeName {
    "pve1".parse().unwrap()
}

fn vmid() -> Vmid {
    Vmid::try_from(100).unwrap()
}

fn empty(status: &str) -> Act {
    Act::Reply(status.to_owned(), String::new())
}

#[tokio::test]
async fn many_first_calls_make_one_log_in_and_keep_to_the_limit_at_once() {
    let server = Server::start(|_, seen| {
        if seen.is_login() {
            return ticket("PVE:root@pam:6B04::a+b/c=");
        }
        Act::Slow(Duration::from_millis(20), "200 OK".into(), format!("{{\"data\":{VERSION}}}"))
    })
    .await;
    let client = Arc::new(server.client_with_password(limits()));
    let calls = (0..30).map(|_| {
        let client = Arc::clone(&client);
        async move { client.version().await.unwrap() }
    });
    join_all(calls).await;
    assert_eq!((server.logins(), server.calls().len()), (1, 30));
    assert_eq!(server.most_at_once(), 3, "never more than three, and three were used");
}

#[tokio::test]
async fn a_ticket_goes_into_the_cookie_and_its_csrf_token_only_into_writes() {
    let server = Server::start(|_, seen| match seen.call().as_str() {
        "POST /access/ticket" => ticket("PVE:root@pam:6B04::a+b/c="),
        "GET /version" => data(VERSION),
        _ => data(START),
    })
    .await;
    let client = server.client_with_password(limits());
    client.version().await.unwrap();
    client.start(&node(), vmid()).await.unwrap();
    let seen = server.seen();
    let cookie = Some("PVEAuthCookie=PVE%3Aroot%40pam%3A6B04%3A%3Aa%2Bb%2Fc%3D");
    assert_eq!(seen[0].param("username").as_deref(), Some("root@pam"));
    assert_eq!(seen[0].header("cookie"), None);
    assert_eq!((seen[1].header("cookie"), seen[1].header("csrfpreventiontoken")), (cookie, None));
    let csrf = Some("csrf-of-PVE:root@pam:6B04::a+b/c=");
    assert_eq!((seen[2].header("cookie"), seen[2].header("csrfpreventiontoken")), (cookie, csrf));
}

#[tokio::test]
async fn a_token_is_sent_as_proxmox_wants_it_and_never_logs_in() {
    let server = Server::start(|_, _| data(VERSION)).await;
    let secret = random_secret();
    let credential =
        Credential::Token { id: "proximity".to_owned(), secret: Secret::new(secret.clone()) };
    let client = PveClient::connect(&server.spec(credential), limits()).unwrap();
    client.version().await.unwrap();
    let expected = format!("PVEAPIToken=root@pam!proximity={secret}");
    assert_eq!(server.seen()[0].header("authorization"), Some(expected.as_str()));
    assert_eq!(server.logins(), 0);
}

/// A ticket can end early (the host's key was rotated, its clock jumped), in reads and in writes.
#[tokio::test]
async fn a_401_midway_is_answered_by_one_new_log_in() {
    let server = Server::start(|number, seen| match seen.call().as_str() {
        "POST /access/ticket" => ticket(&format!("ticket-{number}")),
        _ if seen.header("cookie") == Some("PVEAuthCookie=ticket-0") => {
            empty("401 Permission denied - invalid csrf token")
        }
        _ => data(START),
    })
    .await;
    let client = server.client_with_password(limits());
    client.start(&node(), vmid()).await.unwrap();
    client.start(&node(), vmid()).await.unwrap();
    assert_eq!((server.logins(), server.calls().len()), (2, 3));
}

#[tokio::test]
async fn a_401_that_stays_is_unauthorized_and_ends_the_trying() {
    let script = |_: usize, seen: &Seen| {
        if seen.is_login() { ticket("t") } else { empty("401 Authentication failed!") }
    };
    let server = Server::start(script).await;
    let client = server.client_with_password(limits());
    let error = client.start(&node(), vmid()).await.unwrap_err();
    assert!(matches!(error, HypervisorError::Unauthorized { .. }), "{error:?}");
    assert_eq!((server.logins(), server.calls().len()), (2, 2));

    let server = Server::start(script).await;
    let error = server.client().version().await.unwrap_err();
    assert!(matches!(error, HypervisorError::Unauthorized { .. }), "{error:?}");
    assert_eq!((server.logins(), server.calls().len()), (0, 1));
}

#[tokio::test]
async fn a_refused_password_is_not_tried_again_at_once() {
    let server = Server::start(|_, _| refusal(401, "authentication failure")).await;
    let pause = Limits { refusal_pause: Duration::from_secs(60), ..limits() };
    let client = server.client_with_password(pause);
    for _ in 0..5 {
        let error = client.version().await.unwrap_err();
        assert!(matches!(error, HypervisorError::Unauthorized { .. }), "{error:?}");
    }
    assert_eq!((server.logins(), server.calls().len()), (1, 0));
}

#[tokio::test]
async fn a_ticket_is_renewed_with_itself_before_it_ends_and_with_the_password_after() {
    let server = Server::start(|number, seen| match seen.call().as_str() {
        "POST /access/ticket" => ticket(&format!("ticket-{number}")),
        _ => data(VERSION),
    })
    .await;
    let always = Limits { ticket_renew: Duration::ZERO, ..limits() };
    let client = server.client_with_password(always);
    for _ in 0..3 {
        client.version().await.unwrap();
    }
    let passwords: Vec<_> =
        server.seen().iter().filter(|seen| seen.is_login()).map(|s| s.param("password")).collect();
    assert_eq!(passwords.len(), 3);
    assert_eq!(passwords[1].as_deref(), Some("ticket-0"));
    assert_eq!(passwords[2].as_deref(), Some("ticket-2"));

    let ended = Limits { ticket_end: Duration::ZERO, ..always };
    let client = server.client_with_password(ended);
    let before = server.seen().len();
    client.version().await.unwrap();
    client.version().await.unwrap();
    let logins: Vec<_> =
        server.seen().split_off(before).into_iter().filter(Seen::is_login).collect();
    assert_eq!(logins.len(), 2);
    assert_eq!(logins[0].param("password"), logins[1].param("password"));
}

#[tokio::test]
async fn a_renewal_that_is_refused_falls_back_to_the_password_and_one_that_fails_to_the_old_ticket()
{
    let server = Server::start(|number, seen| match seen.call().as_str() {
        "POST /access/ticket" if seen.param("password").unwrap().starts_with("ticket-") => {
            refusal(401, "authentication failure")
        }
        "POST /access/ticket" => ticket(&format!("ticket-{number}")),
        _ => data(VERSION),
    })
    .await;
    let always = Limits { ticket_renew: Duration::ZERO, ..limits() };
    let client = server.client_with_password(always);
    client.version().await.unwrap();
    client.version().await.unwrap();
    assert_eq!(server.logins(), 3, "password, ticket (refused), password");

    let server = Server::start(|number, seen| match seen.call().as_str() {
        "POST /access/ticket" if number > 0 => empty("595 Connection refused"),
        "POST /access/ticket" => ticket("ticket-0"),
        _ => data(VERSION),
    })
    .await;
    let client = server.client_with_password(always);
    client.version().await.unwrap();
    client.version().await.unwrap();
    assert_eq!(server.seen().last().unwrap().header("cookie"), Some("PVEAuthCookie=ticket-0"));
}

#[tokio::test]
async fn a_log_in_that_fails_had_no_effect_on_the_write_that_waits_for_it() {
    for (act, name) in [
        (Act::Close, "closed"),
        (empty("596 Broken pipe"), "596"),
        (data("null"), "null"),
        (data(r#"{"ticket":"t"}"#), "no csrf"),
        (Act::Reply("200 OK".into(), "<html>".into()), "html"),
    ] {
        let server = Server::start(move |_, _| act.clone()).await;
        let client = server.client_with_password(limits());
        let error = client.start(&node(), vmid()).await.unwrap_err();
        assert!(matches!(error, HypervisorError::Retryable { .. }), "{name}: {error:?}");
        assert_eq!(server.calls().len(), 0);
    }
}

#[tokio::test]
async fn an_account_with_a_second_factor_is_refused_with_words_that_help() {
    let server = Server::start(|_, _| {
        data(r#"{"ticket":"PVE:!tfa!x","NeedTFA":1,"CSRFPreventionToken":"c","username":"a"}"#)
    })
    .await;
    let error = server.client_with_password(limits()).version().await.unwrap_err();
    assert!(matches!(error, HypervisorError::Permanent { .. }), "{error:?}");
    assert!(error.to_string().contains("API token"));
}

#[tokio::test]
async fn no_secret_is_in_a_debug_print_or_an_error_even_when_the_host_repeats_it() {
    let server = Server::start(|_, seen| {
        let password = seen.param("password").unwrap_or_default();
        refusal(400, &format!("cannot take {password} for a password"))
    })
    .await;
    let secret = random_secret();
    let spec = server.spec(Credential::Password(Secret::new(secret.clone())));
    let client = PveClient::connect(&spec, limits()).unwrap();
    let error = client.version().await.unwrap_err();
    let texts = format!("{error} {error:?} {client:?} {spec:?}");
    assert!(error.to_string().contains("cannot take [redacted]"), "{error}");
    assert!(!texts.contains(&secret));
    assert!(server.seen()[0].body.contains(&secret), "the search would find it where it is");
}
