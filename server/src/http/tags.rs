//! Entity tags: of answers, and in the headers that name some (RFC 9110, 8.8.3 and 13.1).

use sha2::{Digest, Sha256};

/// Characters of a tag that stand for the figures of an answer, after those that stand for its state.
const FIGURES: usize = 8;

/// The tag of a body: a strong validator, since it is made of the bytes.
pub fn of(body: &[u8]) -> String {
    let digest = Sha256::digest(body);
    let hex: String = digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    format!("\"{hex}\"")
}

/// The tag of a body whose state has a tag of its own.
pub fn with_figures(state: &str, body: &[u8]) -> String {
    let all = of(body);
    format!("\"{}-{}\"", state.trim_matches('"'), &all[1..=FIGURES])
}

/// Whether an `If-Match` header names this state, whatever figures were seen with it. Tags are compared
/// strongly: a weak one is none.
pub fn matches_state(header: &str, state: &str) -> bool {
    let state = state.trim_matches('"');
    let is_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    let is_of = |tag: &str| match tag.strip_prefix(state) {
        Some("") => true,
        Some(rest) => rest
            .strip_prefix('-')
            .is_some_and(|figures| figures.len() == FIGURES && figures.bytes().all(is_hex)),
        None => false,
    };
    header.trim() == "*"
        || listed(header).is_some_and(|tags| tags.iter().any(|(weak, tag)| !weak && is_of(tag)))
}

/// Whether an `If-None-Match` header names this tag; compared weakly.
pub fn matches(header: &str, tag: &str) -> bool {
    let tag = tag.trim_matches('"');
    header.trim() == "*"
        || listed(header).is_some_and(|tags| tags.iter().any(|(_, named)| *named == tag))
}

/// The tags of a list without their quotes, and whether each is weak; `None` when it is no list of tags.
fn listed(header: &str) -> Option<Vec<(bool, &str)>> {
    let blank = [' ', '\t'];
    let mut tags = Vec::new();
    let mut rest = header.trim_start_matches([',', ' ', '\t']);
    while !rest.is_empty() {
        let (is_weak, quoted) = match rest.strip_prefix("W/") {
            Some(quoted) => (true, quoted),
            None => (false, rest),
        };
        let (tag, after) = quoted.strip_prefix('"')?.split_once('"')?;
        let after = after.trim_start_matches(blank);
        if tag.contains(blank) || !(after.is_empty() || after.starts_with(',')) {
            return None;
        }
        tags.push((is_weak, tag));
        rest = after.trim_start_matches([',', ' ', '\t']);
    }
    Some(tags)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn if_match_names_a_state_by_its_very_tag_alone_in_a_list_or_with_figures() {
        let state = of(b"a");
        let plain = state.trim_matches('"');
        let seen = with_figures(&state, b"a and figures");
        for matching in [
            "*".to_owned(),
            state.clone(),
            seen.clone(),
            format!("\"x\", {state}"),
            format!(" ,, {seen} , \"x,y\""),
            format!("W/\"x\", {state}"),
        ] {
            assert!(matches_state(&matching, &state), "{matching}");
        }
        for other in [
            String::new(),
            plain.to_owned(),
            format!("\"{plain}-anything\""),
            format!("\"{plain}-\""),
            format!("\"{plain}-0123456g\""),
            format!("\"{plain}-012345678\""),
            format!("\"{plain}x\""),
            format!("W/{state}"),
            format!("\"x\", *, \"{plain}\" y"),
            format!("\"{plain}"),
            format!("{state} {state}"),
            "\"\"".to_owned(),
            of(b"b"),
        ] {
            assert!(!matches_state(&other, &state), "{other}");
        }
    }

    #[test]
    fn if_none_match_compares_weakly() {
        let tag = of(b"a");
        for matching in ["*".to_owned(), tag.clone(), format!("W/{tag}"), format!("\"x\", {tag}")] {
            assert!(matches(&matching, &tag), "{matching}");
        }
        for other in [String::new(), of(b"b"), tag.trim_matches('"').to_owned()] {
            assert!(!matches(&other, &tag), "{other}");
        }
    }
}
