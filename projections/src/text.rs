//! How moments are written and how a search term is matched.

use std::fmt;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// A moment in microseconds since 1970; JSON shows it as RFC 3339 in UTC.
///
/// Kept as a number while events are folded, since writing one for each event costs more than all
/// else about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(pub i64);

/// A moment as RFC 3339, with all digits.
const FORM: [u8; 27] = *b"0000-00-00T00:00:00.000000Z";
/// Where the fraction's point stands.
const POINT: usize = 19;

impl Moment {
    /// As RFC 3339, without zeros at the fraction's end; `None` outside the years 0 to 9999.
    ///
    /// The calendar is the library's; the digits are set here, since a rebuild writes several moments
    /// for each row, and its formatting took a fifth of that.
    fn rfc3339(self, text: &mut [u8; FORM.len()]) -> Option<&str> {
        let moment = OffsetDateTime::from_unix_timestamp_nanos(i128::from(self.0) * 1_000).ok()?;
        let (year, month, day) = moment.to_calendar_date();
        let (hour, minute, second, mut fraction) = moment.to_hms_micro();
        let year = u32::try_from(year).ok().filter(|year| *year <= 9999)?;
        *text = FORM;
        set(&mut text[0..4], year);
        set(&mut text[5..7], u8::from(month).into());
        set(&mut text[8..10], day.into());
        set(&mut text[11..13], hour.into());
        set(&mut text[14..16], minute.into());
        set(&mut text[17..POINT], second.into());
        let mut digits = if fraction == 0 { 0 } else { 6 };
        while digits > 0 && fraction % 10 == 0 {
            fraction /= 10;
            digits -= 1;
        }
        let end = if digits == 0 { POINT } else { POINT + 1 + digits };
        set(text.get_mut(POINT + 1..end).unwrap_or_default(), fraction);
        *text.get_mut(end)? = b'Z';
        std::str::from_utf8(text.get(..=end)?).ok()
    }
}

/// Fills these bytes with a number's digits.
fn set(digits: &mut [u8], mut number: u32) {
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.rfc3339(&mut { FORM }) {
            Some(text) => f.write_str(text),
            // Shown as it is rather than as another moment.
            None => self.0.fmt(f),
        }
    }
}

impl Serialize for Moment {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.rfc3339(&mut { FORM }) {
            Some(text) => serializer.serialize_str(text),
            None => serializer.collect_str(&self.0),
        }
    }
}

impl<'de> Deserialize<'de> for Moment {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if let Ok(micros) = text.parse() {
            return Ok(Self(micros));
        }
        let moment = OffsetDateTime::parse(&text, &Rfc3339).map_err(D::Error::custom)?;
        let micros = i64::try_from(moment.unix_timestamp_nanos() / 1_000);
        micros.map(Self).map_err(D::Error::custom)
    }
}

/// The pattern that finds this text anywhere, for `like … escape '\'`.
pub(crate) fn contains(term: &str) -> String {
    let mut pattern = String::with_capacity(term.len() + 2);
    pattern.push('%');
    for c in term.chars() {
        if matches!(c, '%' | '_' | '\\') {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern.push('%');
    pattern
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_moment_is_read_as_it_was_written() {
        let days = [-62_167_219_200, -1, 0, 951_827_696, 1_780_000_000, 253_402_300_799];
        let fractions = (0..6).flat_map(|digits| [1, 9, 10].map(|n| n * 10_i64.pow(digits)));
        for micros in fractions.chain([0, 123_456, 120_000]).filter(|micros| *micros < 1_000_000) {
            for seconds in days {
                let moment = Moment(seconds * 1_000_000 + micros);
                let text = serde_json::to_string(&moment).unwrap();
                assert_eq!(text, format!("\"{moment}\""));
                let nanos = i128::from(moment.0) * 1_000;
                let library = OffsetDateTime::from_unix_timestamp_nanos(nanos).unwrap();
                assert_eq!(text, format!("\"{}\"", library.format(&Rfc3339).unwrap()));
                assert_eq!(serde_json::from_str::<Moment>(&text).unwrap(), moment, "{text}");
            }
        }
    }

    #[test]
    fn a_moment_beyond_the_calendar_is_kept_as_a_number() {
        let text = serde_json::to_string(&Moment(i64::MAX)).unwrap();
        assert_eq!(text, format!("\"{}\"", i64::MAX));
        assert_eq!(serde_json::from_str::<Moment>(&text).unwrap(), Moment(i64::MAX));
    }
}
