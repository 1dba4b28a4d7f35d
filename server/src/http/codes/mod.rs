//! Every error code there is: its status, its title, and the text of its page in `docs/errors/`.

mod copies;
mod domain;
mod general;
mod identity;
mod resources;
mod schedules;

/// One code of the contract; once published it keeps its meaning.
pub struct Code {
    pub code: &'static str,
    /// The status it comes with; a few come with a second one, which their text says.
    pub status: u16,
    pub title: &'static str,
    /// What it means and what to do, for the page.
    pub text: &'static str,
}

const fn code(status: u16, code: &'static str, title: &'static str, text: &'static str) -> Code {
    Code { code, status, title, text }
}

/// All codes, in no particular order.
pub fn all() -> impl Iterator<Item = &'static Code> {
    [
        general::CODES,
        identity::CODES,
        resources::CODES,
        domain::CODES,
        copies::CODES,
        schedules::CODES,
    ]
    .into_iter()
    .flatten()
}

/// The entry of a code.
pub fn find(code: &str) -> Option<&'static Code> {
    all().find(|entry| entry.code == code)
}

/// The page of a code, as it stands in `docs/errors/<code>.md` and behind `/problems/<code>`.
pub fn page(entry: &Code) -> String {
    format!("# {}\n\n`{}` · HTTP {}\n\n{}\n", entry.title, entry.code, entry.status, entry.text)
}

#[cfg(test)]
mod tests;
