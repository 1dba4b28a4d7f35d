//! What a person is called: user name, mail address and the two parts of a real name.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::value::{LeaseKey, ValueError};

macro_rules! text_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The text as it was written.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

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

text_type! {
    /// A user name: 1 to 150 of `a-z A-Z 0-9 @ . + - _`, as the replaced product allowed; names that
    /// differ only in case are one name.
    Username
}

impl Username {
    /// The form in which names are compared.
    pub fn folded(&self) -> String {
        self.0.to_ascii_lowercase()
    }

    /// What makes it unique.
    pub fn lease(&self) -> LeaseKey {
        LeaseKey::Username(self.folded())
    }
}

impl FromStr for Username {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"@.+-_".contains(&b);
        if (1..=150).contains(&text.len()) && text.bytes().all(allowed) {
            Ok(Self(text.to_owned()))
        } else {
            Err(ValueError::new(
                "username.invalid",
                "a user name has 1 to 150 letters, digits or @ . + - _",
            ))
        }
    }
}

text_type! {
    /// A mail address: a plain `local@domain` of at most 254 characters (RFC 5321); nothing is ever
    /// sent to it. Addresses that differ only in case are one address.
    EmailAddress
}

impl EmailAddress {
    /// The form in which addresses are compared.
    pub fn folded(&self) -> String {
        self.0.to_ascii_lowercase()
    }

    /// What makes it unique.
    pub fn lease(&self) -> LeaseKey {
        LeaseKey::Email(self.folded())
    }
}

impl FromStr for EmailAddress {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let label = |label: &str| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        // RFC 5322 atext and dots; quoted local parts are not accepted.
        let atext = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+/=?^_`{|}~-.".contains(&b);
        let valid = text.len() <= 254
            && text.rsplit_once('@').is_some_and(|(local, domain)| {
                (1..=64).contains(&local.len())
                    && local.bytes().all(atext)
                    && domain.split('.').all(label)
            });
        if valid {
            Ok(Self(text.to_owned()))
        } else {
            Err(ValueError::new("email.invalid", "a mail address is written like name@example.org"))
        }
    }
}

text_type! {
    /// A first or last name: up to 150 characters, none of them a control character; may be empty.
    PersonalName
}

impl FromStr for PersonalName {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        if text.chars().count() <= 150 && !text.chars().any(char::is_control) {
            Ok(Self(text.to_owned()))
        } else {
            Err(ValueError::new("name.invalid", "a name has up to 150 printable characters"))
        }
    }
}
