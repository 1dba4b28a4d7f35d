//! What a parameter is: its name, type and limits, written down in the route table.

use super::formats::Format;

/// The type of a parameter with its limits.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Kind {
    /// `0` or `1`; JSON's `true` and `false` arrive as these.
    Boolean,
    /// A whole number within limits.
    Integer { min: Option<i64>, max: Option<i64>, format: Format },
    /// A number with a lower limit.
    Number { min: Option<f64>, max: Option<f64> },
    /// A text with length limits and a format.
    Text { min: usize, max: Option<usize>, format: Format },
    /// One of these.
    Choice(&'static [&'static str]),
    /// A list of texts.
    List,
}

/// One parameter of a call. A name that ends in `[n]` stands for a numbered family.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Param {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) optional: bool,
    /// Another parameter that has to be present with this one.
    pub(crate) requires: Option<&'static str>,
}

impl Param {
    pub(crate) fn requires(mut self, other: &'static str) -> Self {
        self.requires = Some(other);
        self
    }
}

pub(crate) fn need(name: &'static str, kind: Kind) -> Param {
    Param { name, kind, optional: false, requires: None }
}

pub(crate) fn opt(name: &'static str, kind: Kind) -> Param {
    Param { name, kind, optional: true, requires: None }
}

pub(crate) fn boolean() -> Kind {
    Kind::Boolean
}

pub(crate) fn int() -> Kind {
    Kind::Integer { min: None, max: None, format: Format::Any }
}

pub(crate) fn vmid() -> Kind {
    Kind::Integer { min: Some(100), max: Some(999_999_999), format: Format::Vmid }
}

pub(crate) fn num() -> Kind {
    Kind::Number { min: None, max: None }
}

pub(crate) fn text() -> Kind {
    Kind::Text { min: 0, max: None, format: Format::Any }
}

pub(crate) fn choice(values: &'static [&'static str]) -> Kind {
    Kind::Choice(values)
}

impl Kind {
    pub(crate) fn at_least(self, limit: u32) -> Self {
        match self {
            Self::Integer { max, format, .. } => {
                Self::Integer { min: Some(i64::from(limit)), max, format }
            }
            Self::Number { max, .. } => Self::Number { min: Some(f64::from(limit)), max },
            Self::Text { max, format, .. } => Self::Text { min: limit as usize, max, format },
            other => other,
        }
    }

    pub(crate) fn at_most(self, limit: u32) -> Self {
        match self {
            Self::Integer { min, format, .. } => {
                Self::Integer { min, max: Some(i64::from(limit)), format }
            }
            Self::Number { min, .. } => Self::Number { min, max: Some(f64::from(limit)) },
            Self::Text { min, format, .. } => Self::Text { min, max: Some(limit as usize), format },
            other => other,
        }
    }

    pub(crate) fn of(self, format: Format) -> Self {
        match self {
            Self::Integer { min, max, .. } => Self::Integer { min, max, format },
            Self::Text { min, max, .. } => Self::Text { min, max, format },
            other => other,
        }
    }

    /// The name of the type in the API description.
    #[cfg(test)]
    pub(crate) fn type_name(&self) -> &'static str {
        match self {
            Self::Boolean => "boolean",
            Self::Integer { .. } => "integer",
            Self::Number { .. } => "number",
            Self::Text { .. } | Self::Choice(_) => "string",
            Self::List => "array",
        }
    }
}
