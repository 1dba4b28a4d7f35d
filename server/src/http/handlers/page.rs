//! Limits of lists: pages and numbers of lines.

use serde::Deserialize;
use utoipa::IntoParams;

use crate::http::problem::Problem;

/// Which page is wanted.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Paging {
    /// From 1.
    pub page: Option<i64>,
    /// 1 to 100; 20 by default.
    pub per_page: Option<i64>,
}

/// Pages beyond this hold nothing, and their offset would be more than the databases take.
pub const LAST_PAGE: u32 = 10_000_000;
/// Entries that a page may be asked to hold.
pub const MOST_OF_A_PAGE: u32 = 100;

impl Paging {
    /// Page and size, in range.
    pub fn checked(self) -> Result<(u32, u32), Problem> {
        Ok((
            within("page", self.page, 1, 1, LAST_PAGE)?,
            within("per_page", self.per_page, 20, 1, MOST_OF_A_PAGE)?,
        ))
    }
}

/// A number of the query within its limits.
pub fn within(
    name: &str,
    value: Option<i64>,
    default: u32,
    least: u32,
    most: u32,
) -> Result<u32, Problem> {
    match value {
        None => Ok(default),
        Some(value) => match u32::try_from(value) {
            Ok(value) if (least..=most).contains(&value) => Ok(value),
            _ => Err(Problem::field(
                format!("?{name}"),
                "query.out_of_range",
                format!("{name} lies between {least} and {most}"),
            )),
        },
    }
}
