//! What a database error says about the batch that met it.

/// The four things that can be known after a failed call.
#[derive(Debug)]
pub(super) enum Fault {
    /// The database refuses the bytes of some append, now and always. Nothing was stored.
    Refused(String),
    /// It would take the same batch at another moment (a deadlock, a cancelled statement). Nothing was stored.
    Again(String),
    /// It cannot write at present. Nothing was stored.
    Unavailable(String),
    /// The connection was lost while the call was under way.
    Unknown(String),
}

impl Fault {
    /// Judges a failed call of `proximity_append`.
    pub fn of_call(error: sqlx::Error) -> Self {
        match &error {
            sqlx::Error::Database(database) => {
                let code = database.code().unwrap_or_default().into_owned();
                let reason = format!("{} ({code})", database.message());
                match code.get(..2).unwrap_or_default() {
                    "21" | "22" | "23" | "P0" => Self::Refused(reason),
                    "40" | "55" => Self::Again(reason),
                    // Being told that the server ends says nothing about a commit already under way.
                    "57" if code != "57014" => Self::Unknown(reason),
                    "57" => Self::Again(reason),
                    "08" => Self::Unknown(reason),
                    _ => Self::Unavailable(reason),
                }
            }
            sqlx::Error::Encode(_) | sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => {
                Self::Refused(error.to_string())
            }
            _ => Self::Unknown(error.to_string()),
        }
    }
}
