//! What a parser says of a value, in words of our own: its own name types of this program.

/// What is wrong with a value.
#[derive(Debug, PartialEq, Eq)]
pub enum Wrong {
    /// A field of this name is not there.
    Missing(String),
    /// A field of this name is there twice.
    Twice(String),
    /// It is a number beyond what its kind can hold.
    OutOfRange,
    /// What it would have to be, e.g. `is a whole number`.
    Kind(String),
}

/// What `serde_json` says, as of a text that is no JSON, of a value that is none where one of several
/// words is expected.
pub const NO_WORD: &str = "expected value";

impl Wrong {
    /// From the text of one of serde's errors, those of `serde_urlencoded` included. A text that is
    /// none of theirs is a type's of ours, and stays.
    pub fn of(reason: &str) -> Self {
        // The position says nothing to whoever did not write the text by hand.
        let reason = reason.split(" at line ").next().unwrap_or(reason);
        let quoted = || reason.split('`').nth(1).unwrap_or_default().to_owned();
        let expected = reason.split("expected ").nth(1).unwrap_or_default();
        if reason.starts_with("missing field") {
            Self::Missing(quoted())
        } else if reason.starts_with("duplicate field") {
            Self::Twice(quoted())
        } else if reason.starts_with("number too ") || is_beyond(reason, expected) {
            Self::OutOfRange
        } else if reason == NO_WORD {
            Self::Kind("is a text".to_owned())
        } else if reason.starts_with("unknown variant") {
            let names: Vec<&str> = expected.split('`').skip(1).step_by(2).collect();
            Self::Kind(format!("is one of {}", names.join(", ")))
        } else if reason.starts_with("invalid digit") || reason.starts_with("cannot parse integer")
        {
            Self::Kind("is a whole number".to_owned())
        } else if reason.contains("`true` or `false`") {
            Self::Kind("is true or false".to_owned())
        } else if reason.starts_with("invalid ") {
            Self::Kind(format!("is {}", kind(expected)))
        } else {
            Self::Kind(format!("is not accepted: {reason}"))
        }
    }

    /// The sentence about a value of this name.
    pub fn sentence(&self, name: &str) -> String {
        match self {
            Self::Missing(name) => format!("{name} is missing"),
            Self::Twice(name) => format!("{name} is there twice"),
            Self::OutOfRange => format!("{name} is out of range"),
            Self::Kind(what) => format!("{name} {what}"),
        }
    }
}

fn is_whole(expected: &str) -> bool {
    let bits = expected.strip_prefix(['i', 'u']).unwrap_or_default();
    bits == "size" || bits.parse::<u8>().is_ok()
}

/// A whole number where a smaller one is wanted.
fn is_beyond(reason: &str, expected: &str) -> bool {
    reason.starts_with("invalid value: integer") && is_whole(expected)
}

/// The kind of value that was expected.
fn kind(expected: &str) -> &'static str {
    match expected {
        whole if is_whole(whole) => "a whole number",
        "f32" | "f64" => "a number",
        "a boolean" => "true or false",
        text if text.contains("string") || text == "a secret" => "a text",
        list if list.contains("sequence") || list.contains("tuple") => "a list",
        map if map.contains("map") || map.contains("struct") => "an object",
        _ => "of another kind",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_word_of_a_parser_is_left() {
        for (said, told) in [
            ("missing field `hostname` at line 1 column 2", "hostname is missing"),
            ("duplicate field `a` at line 1 column 9", "a is there twice"),
            ("invalid type: integer `7`, expected a string at line 1 column 9", "x is a text"),
            ("invalid type: string \"7\", expected i64 at line 1 column 9", "x is a whole number"),
            ("invalid type: floating point `1.5`, expected u32", "x is a whole number"),
            ("invalid type: string \"yes\", expected a boolean", "x is true or false"),
            ("invalid type: sequence, expected a map", "x is an object"),
            ("invalid type: null, expected struct CreateApp", "x is an object"),
            ("invalid type: map, expected a sequence", "x is a list"),
            ("invalid value: integer `300`, expected u8 at line 1 column 3", "x is out of range"),
            ("expected value at line 1 column 9", "x is a text"),
            ("number too large to fit in target type", "x is out of range"),
            ("invalid digit found in string", "x is a whole number"),
            ("cannot parse integer from empty string", "x is a whole number"),
            ("provided string was not `true` or `false`", "x is true or false"),
            ("unknown variant `king`, expected `admin` or `user`", "x is one of admin, user"),
            ("unknown variant `c`, expected one of `a`, `b`, `d`", "x is one of a, b, d"),
        ] {
            assert_eq!(Wrong::of(said).sentence("x"), told, "{said}");
        }
    }
}
