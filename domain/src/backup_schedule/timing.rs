//! When a schedule fires, as a person writes it: a cron expression and the time zone it is meant in.
//!
//! What such a text means, and when its next time comes, needs a calendar and the world's time zones,
//! which are no business of this crate: whoever asks for a schedule brings that along.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::value::ValueError;

/// Characters of an expression at most.
const LONGEST: usize = 200;

/// Five fields, one space between each two: minute, hour, day of month, month, day of week.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Cron(String);

impl Cron {
    /// As it is stored.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Cron {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let fields: Vec<&str> = text.split_ascii_whitespace().collect();
        if text.len() <= LONGEST && text.is_ascii() && fields.len() == 5 {
            Ok(Self(fields.join(" ")))
        } else {
            Err(ValueError::new(
                "backup_schedule.cron_invalid",
                "a cron expression has five fields: minute, hour, day of month, month, day of week",
            ))
        }
    }
}

/// A name of the IANA time zone database, e.g. `Europe/Berlin`; `UTC` by default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Timezone(String);

impl Timezone {
    /// As it is stored.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for Timezone {
    fn default() -> Self {
        Self("UTC".to_owned())
    }
}

impl FromStr for Timezone {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let word = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'/' | b'_' | b'-' | b'+');
        if (1..=64).contains(&text.len()) && text.bytes().all(word) {
            Ok(Self(text.to_owned()))
        } else {
            Err(ValueError::new(
                "backup_schedule.timezone_invalid",
                "a time zone is a name such as UTC or Europe/Berlin",
            ))
        }
    }
}

macro_rules! as_text {
    ($name:ident) => {
        impl TryFrom<String> for $name {
            type Error = ValueError;
            fn try_from(text: String) -> Result<Self, ValueError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> Self {
                value.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}
as_text!(Cron);
as_text!(Timezone);
