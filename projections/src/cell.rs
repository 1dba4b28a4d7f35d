//! What a read model's tables are made of, as data: both stores derive their SQL from it.

/// The type of a column; two are enough, since everything else is in a row's JSON body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Text,
    Integer,
}

/// A value of a column.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Cell {
    Null,
    Text(String),
    Integer(i64),
}

impl Cell {
    /// The text in it, if it is one.
    pub fn text(self) -> Option<String> {
        match self {
            Self::Text(text) => Some(text),
            Self::Null | Self::Integer(_) => None,
        }
    }

    /// The number in it, if it is one.
    pub fn integer(&self) -> Option<i64> {
        match self {
            Self::Integer(number) => Some(*number),
            Self::Null | Self::Text(_) => None,
        }
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<i64> for Cell {
    fn from(number: i64) -> Self {
        Self::Integer(number)
    }
}

impl From<bool> for Cell {
    fn from(yes: bool) -> Self {
        Self::Integer(i64::from(yes))
    }
}

impl<T: Into<Self>> From<Option<T>> for Cell {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

/// A column that queries filter or sort by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Column {
    pub name: &'static str,
    pub kind: Kind,
}

impl Column {
    /// A text column.
    pub const fn text(name: &'static str) -> Self {
        Self { name, kind: Kind::Text }
    }

    /// A column of whole numbers.
    pub const fn integer(name: &'static str) -> Self {
        Self { name, kind: Kind::Integer }
    }
}

/// A table: its key first, then its other columns; names are lower-case words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Table {
    pub name: &'static str,
    pub key: Column,
    pub columns: &'static [Column],
    /// The columns of each index, as SQL writes them, e.g. `owner, born desc`.
    pub indexes: &'static [&'static str],
}

impl Table {
    /// The key, then the others.
    pub(crate) fn all_columns(&self) -> impl Iterator<Item = Column> + Clone + '_ {
        std::iter::once(self.key).chain(self.columns.iter().copied())
    }

    /// `id, owner, …`
    pub(crate) fn column_list(&self) -> String {
        self.all_columns().map(|column| column.name).collect::<Vec<_>>().join(", ")
    }
}
