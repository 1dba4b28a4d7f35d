//! Why no answer came, in words of our own: what libraries and the operating system say of it tells a
//! reader nothing to go by, and goes to the log only.

use std::error::Error;
use std::io::ErrorKind;

/// The words for an error of a connection, or of making one; its whole chain is logged, under the
/// request that waits.
pub(crate) fn silence(error: &(dyn Error + 'static), connecting: bool) -> String {
    tracing::info!(cause = chain(error).join(": "), "no answer from Proxmox");
    words(error, connecting).to_owned()
}

fn words(error: &(dyn Error + 'static), connecting: bool) -> &'static str {
    let kind = causes(error).find_map(|cause| match cause.downcast_ref::<std::io::Error>() {
        Some(io) if !matches!(io.kind(), ErrorKind::Other) => Some(io.kind()),
        _ => None,
    });
    let is_late = causes(error).any(|cause| {
        cause.downcast_ref::<reqwest::Error>().is_some_and(reqwest::Error::is_timeout)
    });
    match kind {
        Some(ErrorKind::ConnectionRefused) => "the connection was refused",
        Some(ErrorKind::TimedOut) => "no answer in time",
        Some(ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable) => {
            "the network has no way to the host"
        }
        _ if is_late => "no answer in time",
        _ if connecting => "no connection could be made",
        _ => "the connection broke before the whole answer was there",
    }
}

/// The error and what caused it, down to what an I/O error carries inside.
fn causes<'e>(error: &'e (dyn Error + 'static)) -> impl Iterator<Item = &'e (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error: &&'e (dyn Error + 'static)| {
        let error: &'e (dyn Error + 'static) = *error;
        let inside = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        inside.map(|inner| inner as &(dyn Error + 'static)).or_else(|| error.source())
    })
}

/// The texts of the causes, each once. The outermost of `reqwest` would only add the URL.
fn chain(error: &(dyn Error + 'static)) -> Vec<String> {
    let mut texts: Vec<String> = Vec::new();
    let mut next = match error.downcast_ref::<reqwest::Error>() {
        Some(error) => error.source(),
        None => Some(error),
    };
    while let Some(cause) = next {
        let text = cause.to_string();
        if !texts.iter().any(|known| known.contains(&text)) {
            texts.push(text);
        }
        next = cause.source();
    }
    texts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_word_of_a_library_is_left() {
        for (error, told) in [
            (ErrorKind::ConnectionRefused.into(), "the connection was refused"),
            (ErrorKind::TimedOut.into(), "no answer in time"),
            (std::io::Error::other("os error 111"), "no connection could be made"),
        ] {
            let error: std::io::Error = error;
            assert_eq!(silence(&error, true), told);
            let wrapped = std::io::Error::other(error);
            assert_eq!(silence(&wrapped, true), told, "inside of another");
        }
        let cut = "the connection broke before the whole answer was there";
        assert_eq!(silence(&std::io::Error::other("close_notify"), false), cut);
    }
}
