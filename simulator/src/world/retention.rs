//! How many backups of a guest a storage keeps: `prune-backups`, such as `keep-last=3,keep-daily=7`.

/// A retention as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Retention {
    text: String,
    rules: Vec<(String, usize)>,
}

impl Retention {
    /// Reads a property string; `None` when it is none.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let rules = text
            .split(',')
            .map(|rule| {
                let (name, count) = rule.split_once('=')?;
                let known = ["all", "last", "hourly", "daily", "weekly", "monthly", "yearly"];
                let known = known.contains(&name.strip_prefix("keep-")?);
                known.then_some((name.to_owned(), count.parse().ok()?))
            })
            .collect::<Option<Vec<_>>>()?;
        Some(Self { text: text.to_owned(), rules })
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    fn count(&self, name: &str) -> usize {
        self.rules.iter().find(|(rule, _)| rule == name).map_or(0, |(_, count)| *count)
    }

    /// How many there may be before another is refused; `None`: any number.
    pub(crate) fn limit(&self) -> Option<usize> {
        let all = self.count("keep-all") > 0;
        Some(self.rules.iter().map(|(_, count)| count).sum()).filter(|limit| !all && *limit > 0)
    }

    /// How many of the newest stay when a job prunes; `None` when other rules count as well.
    pub(crate) fn newest(&self) -> Option<usize> {
        let last = self.count("keep-last");
        self.limit().filter(|limit| *limit == last)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_limit_is_the_sum_of_what_is_kept() {
        let limit = |text| Retention::parse(text).unwrap().limit();
        assert_eq!(limit("keep-last=2"), Some(2));
        assert_eq!(limit("keep-last=2,keep-daily=7"), Some(9));
        assert_eq!(limit("keep-all=1"), None);
        for wrong in ["", "keep", "keep-last", "keep-last=x", "keep-first=1", "last=1"] {
            assert_eq!(Retention::parse(wrong), None, "{wrong}");
        }
    }
}
