//! What a reply that is not a success means: the status, and Proxmox's own words where they decide.

use proximity_commands::ports::{HypervisorError, Reason};
use proximity_commands::redact::without_secrets;
use serde_json::Value;

use crate::request::{Request, call};
use crate::transport::Reply;

/// The text of a refusal: `message` of the body (Proxmox VE 8.3 and later), else the reason phrase;
/// then the parameters complained about.
pub(crate) fn refusal_text(reply: &Reply) -> String {
    let body: Value = serde_json::from_slice(&reply.body).unwrap_or(Value::Null);
    let message = body.get("message").and_then(Value::as_str).map(str::trim).unwrap_or_default();
    let mut text = if message.is_empty() { reply.reason.trim() } else { message }.to_owned();
    if let Some(errors) = body.get("errors").and_then(Value::as_object) {
        for (name, error) in errors {
            let error = error.as_str().map_or_else(|| error.to_string(), |text| text.to_owned());
            text.push_str(&format!(" {name}: {}", error.trim()));
        }
    }
    text
}

/// Turns a reply outside 200 to 299 into what it means for the call.
pub(crate) fn refusal(request: &Request, reply: &Reply) -> HypervisorError {
    let call = request.call;
    let text = refusal_text(reply);
    let reason = Reason::Answered { status: reply.status, words: clean(request, &text) };
    match reply.status {
        401 => HypervisorError::Unauthorized { call },
        429 => HypervisorError::Retryable { call, reason },
        // A redirect is not followed: the credential was entered for this address.
        300..=499 => HypervisorError::Permanent { call, reason },
        500 => words(request, &text, reason),
        501 | 505 | 506 => HypervisorError::Permanent { call, reason },
        // The node could not be connected to, so it was not asked (AnyEvent::HTTP).
        595 => match request.node() {
            Some(node) => HypervisorError::Unreachable { call, node, reason },
            None => HypervisorError::Retryable { call, reason },
        },
        _ => open(request, reason),
    }
}

/// An outcome that the reply leaves open.
fn open(request: &Request, reason: Reason) -> HypervisorError {
    let call = request.call;
    if request.is_write() {
        HypervisorError::Unknown { call, reason }
    } else {
        HypervisorError::Retryable { call, reason }
    }
}

/// 500 is Proxmox's status for everything that dies in Perl; only the words tell them apart.
fn words(request: &Request, text: &str, reason: Reason) -> HypervisorError {
    let call = request.call;
    let has = |words: &str| text.contains(words);
    if matches!(call, call::CREATE | call::CLONE) && guest_is(text, "already exists") {
        return HypervisorError::VmidTaken { call };
    }
    let already = match call {
        call::START => guest_is(text, "already running"),
        call::STOP | call::SHUTDOWN => guest_is(text, "not running"),
        call::PULL => has("refusing to override existing file"),
        _ => false,
    };
    if already {
        return HypervisorError::AlreadySo { call };
    }
    if has("Configuration file 'nodes/") && has("does not exist") {
        return HypervisorError::NoGuest { call };
    }
    if has("detected modified configuration") {
        return HypervisorError::DigestMismatch { call };
    }
    if has("CT is locked (") || has("VM is locked (") || has("can't lock file") {
        return HypervisorError::Locked { call, reason };
    }
    // Said before anything is done: another holder of a cluster-wide lock, no majority, a node that
    // cannot be found or reached.
    let before = ["got lock request timeout", "no quorum", "hostname lookup"];
    if before.iter().any(|words| has(words)) {
        return HypervisorError::Retryable { call, reason };
    }
    let judged = [
        "protection mode enabled",
        "container is running",
        "not running",
        "already exists",
        "does not exist",
        "content type needs to be",
        "unable to use volume",
        "no options specified",
        "used in HA resources",
        "is a template",
        "only possible from a snapshot",
        "Permission check failed",
    ];
    if judged.iter().any(|words| has(words)) {
        return HypervisorError::Permanent { call, reason };
    }
    // Any other death may have come midway.
    open(request, reason)
}

/// Whether the text says of a guest, e.g. `CT 140 already exists on node 'pve1'`.
fn guest_is(text: &str, state: &str) -> bool {
    text.match_indices(state).any(|(at, _)| {
        let before = text[..at].trim_end();
        let kind = before.trim_end_matches(|letter: char| letter.is_ascii_digit());
        kind.len() < before.len() && (kind.ends_with("CT ") || kind.ends_with("VM "))
    })
}

/// A server's text made fit for an error: no secret of the request, nothing else that looks like one, no
/// control characters, no novel.
pub(crate) fn clean(request: &Request, text: &str) -> String {
    const LONGEST: usize = 400;
    /// Shorter values (`1`, `yes`) are no secrets, and would tear holes into every text.
    const SHORTEST_SECRET: usize = 4;
    let mut text = text.to_owned();
    for secret in request.secrets.iter().filter(|secret| secret.len() >= SHORTEST_SECRET) {
        text = text.replace(secret.as_str(), "[redacted]");
    }
    let mut clean: String = without_secrets(&text)
        .chars()
        .map(|letter| if letter.is_control() { ' ' } else { letter })
        .take(LONGEST)
        .collect();
    clean.truncate(clean.trim_end().len());
    clean
}

#[cfg(test)]
mod tests {
    use HypervisorError::*;
    use proximity_domain::{NodeName, Vmid};

    use super::*;
    use crate::request;

    fn node() -> NodeName {
        "pve1".parse().unwrap()
    }

    fn vmid() -> Vmid {
        Vmid::try_from(140).unwrap()
    }

    /// The same refusal as a new release and as an old one sends it: with and without a message.
    fn both_ages(request: &Request, status: u16, text: &str) -> HypervisorError {
        let reply = |body: String| Reply {
            status,
            reason: text.to_owned(),
            body: body.into_bytes(),
            certificate: None,
        };
        let message = serde_json::json!({"data": null, "message": format!("{text}\n")});
        let new = refusal(request, &reply(message.to_string()));
        let old = refusal(request, &reply("{\"data\":null}".to_owned()));
        let empty = refusal(request, &reply(String::new()));
        assert_eq!((&new, &new), (&old, &empty), "{text}");
        new
    }

    #[test]
    fn words_that_say_how_things_stand_are_understood_in_both_ages() {
        let call = call::CREATE;
        for text in [
            "CT 140 already exists on node 'pve1'",
            "unable to create CT 140 - CT 140 already exists on node 'pve1'",
            "VM 140 already exists on node 'pve2'",
        ] {
            assert_eq!(both_ages(&request::create(&node()), 500, text), VmidTaken { call });
        }
        let start = request::start(&node(), vmid());
        assert_eq!(
            both_ages(&start, 500, "CT 140 already running"),
            AlreadySo { call: call::START }
        );
        for request in [request::stop(&node(), vmid()), request::shutdown(&node(), vmid(), 9)] {
            let call = request.call;
            assert_eq!(both_ages(&request, 500, "CT 140 not running"), AlreadySo { call });
        }
        let pull = crate::oci::pull(&node(), "local", "a/b:1", "b_1");
        let there = "refusing to override existing file 'b_1.tar'";
        assert_eq!(both_ages(&pull, 500, there), AlreadySo { call: call::PULL });
        let gone = "Configuration file 'nodes/pve1/lxc/140.conf' does not exist";
        let destroy = request::destroy(&node(), vmid());
        assert_eq!(both_ages(&destroy, 500, gone), NoGuest { call: call::DESTROY });
        let config = request::set_protection(&node(), vmid(), false, "d");
        let changed = "detected modified configuration - file changed by other user? Try again.";
        assert_eq!(both_ages(&config, 500, changed), DigestMismatch { call: call::SET_CONFIG });
        for text in [
            "CT is locked (backup)",
            "can't lock file '/run/lock/lxc/pve-config-140.lock' - got timeout",
        ] {
            assert!(matches!(both_ages(&destroy, 500, text), Locked { .. }), "{text}");
        }
    }

    #[test]
    fn a_restart_of_what_does_not_run_is_not_already_so() {
        let reboot = request::reboot(&node(), vmid(), 60);
        assert!(matches!(both_ages(&reboot, 500, "VM 140 not running"), Permanent { .. }));
    }

    #[test]
    fn refusals_that_will_be_repeated_are_permanent() {
        let destroy = request::destroy(&node(), vmid());
        for (status, text) in [
            (500, "can't remove CT 162 - protection mode enabled"),
            (500, "unable to destroy CT 100 - container is running"),
            (500, "storage 'nope' does not exist"),
            (500, "unable to use volume local:x - content type needs to be 'vztmpl'"),
            (403, "Permission check failed (/vms/101, VM.PowerMgmt)"),
            (400, "Parameter verification failed."),
            (501, "Method 'POST /x' not implemented"),
            (301, "Moved Permanently"),
        ] {
            assert!(matches!(both_ages(&destroy, status, text), Permanent { .. }), "{text}");
        }
    }

    #[test]
    fn what_was_refused_before_any_effect_may_be_repeated_and_what_was_not_is_unknown() {
        let write = request::destroy(&node(), vmid());
        let read = request::config(&node(), vmid());
        for text in ["Connection refused", "No route to host"] {
            for request in [&write, &read] {
                let found = both_ages(request, 595, text);
                assert!(
                    matches!(&found, Unreachable { node: away, .. } if *away == node()),
                    "{text}"
                );
            }
        }
        for (status, text) in [
            (500, "cfs-lock 'storage-x' error: got lock request timeout"),
            (500, "cluster not ready - no quorum?"),
            (500, "hostname lookup 'x' failed - failed to get address info for: x: unknown"),
            (429, "Too Many Requests"),
        ] {
            assert!(matches!(both_ages(&write, status, text), Retryable { .. }), "{text}");
            assert!(matches!(both_ages(&read, status, text), Retryable { .. }), "{text}");
        }
        for (status, text) in [
            (596, "Broken pipe"),
            (599, "Too many redirections"),
            (500, "unable to open file: No space left on device"),
            (502, "Bad Gateway"),
            (504, "Gateway Timeout"),
        ] {
            assert!(matches!(both_ages(&write, status, text), Unknown { .. }), "{text}");
            assert!(matches!(both_ages(&read, status, text), Retryable { .. }), "{text}");
        }
    }

    #[test]
    fn an_error_repeats_no_secret_and_no_control_character() {
        let secret: String = std::iter::repeat_with(rand::random::<char>)
            .filter(|letter| letter.is_alphanumeric())
            .take(20)
            .collect();
        let request = request::ticket("root@pam", &secret);
        let text = format!("bad\u{1b}[31m password {secret}");
        let error = both_ages(&request, 400, &text);
        assert!(!format!("{error} {error:?}").contains(&secret));
        assert!(!error.to_string().chars().any(char::is_control));
        assert!(error.to_string().contains("[redacted]"));
    }
}
