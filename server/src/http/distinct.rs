//! Finds a name that an object of a JSON text has twice, however deep: the last one would win, silently.
//! To be sure of that, all of the text has to be read, also what nobody asks for.

use std::collections::HashSet;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

use super::call::escaped;

/// Why a text does not say one thing only.
#[derive(Debug)]
pub enum Unclear {
    /// The JSON pointer to a name that is there twice.
    Twice(String),
    /// A value that has the form of one and is none: a number beyond all that can be held, half of a
    /// character, or what is nested too deep.
    Unreadable(serde_json::Error),
}

/// Reads all of a text that has the form of JSON.
pub fn check(body: &[u8]) -> Result<(), Unclear> {
    let mut place = Place::default();
    let mut parser = serde_json::Deserializer::from_slice(body);
    match Value(&mut place).deserialize(&mut parser) {
        Ok(()) => Ok(()),
        Err(_) if place.is_found => Err(Unclear::Twice(place.pointer)),
        Err(error) => Err(Unclear::Unreadable(error)),
    }
}

#[derive(Default)]
struct Place {
    pointer: String,
    is_found: bool,
}

/// A value at a place.
struct Value<'p>(&'p mut Place);

impl<'de> DeserializeSeed<'de> for Value<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, parser: D) -> Result<(), D::Error> {
        parser.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Value<'_> {
    type Value = ();

    fn expecting(&self, text: &mut fmt::Formatter<'_>) -> fmt::Result {
        text.write_str("a value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let place = self.0;
        let (above, mut index) = (place.pointer.len(), 0_usize);
        loop {
            place.pointer.push_str(&format!("/{index}"));
            if list.next_element_seed(Value(place))?.is_none() {
                place.pointer.truncate(above);
                return Ok(());
            }
            place.pointer.truncate(above);
            index += 1;
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<(), A::Error> {
        let place = self.0;
        let above = place.pointer.len();
        let mut names = HashSet::new();
        while let Some(name) = object.next_key::<String>()? {
            place.pointer.push_str(&format!("/{}", escaped(&name)));
            if !names.insert(name) {
                place.is_found = true;
                return Err(A::Error::custom("a name is there twice"));
            }
            object.next_value_seed(Value(place))?;
            place.pointer.truncate(above);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn twice(body: &str) -> Option<String> {
        match check(body.as_bytes()) {
            Err(Unclear::Twice(pointer)) => Some(pointer),
            Ok(()) | Err(Unclear::Unreadable(_)) => None,
        }
    }

    #[test]
    fn a_name_that_is_there_twice_is_found_wherever_it_is() {
        for (body, pointer) in [
            (r#"{"a":1,"a":1}"#, "/a"),
            (r#"{"environment":{"A":"1","B":"2","A":"3"}}"#, "/environment/A"),
            (r#"{"a":[{},{"b":{"b":1,"b":2}}]}"#, "/a/1/b/b"),
            (r#"{"a/b":{"~":1,"~":2}}"#, "/a~1b/~0"),
            (r#"{"a":1,"\u0061":2}"#, "/a"),
        ] {
            assert_eq!(twice(body).as_deref(), Some(pointer), "{body}");
        }
    }

    #[test]
    fn the_same_name_in_different_objects_is_no_second_one() {
        for body in [r#"{"a":{"a":1},"b":[{"a":1},{"a":1}]}"#, "[1,2.5,true,null,\"x\"]", "7"] {
            assert!(check(body.as_bytes()).is_ok(), "{body}");
        }
    }

    #[test]
    fn what_cannot_be_read_hides_no_name_behind_it() {
        let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
        for odd in ["1e999", r#""\ud800""#, r#"{"\udc00":1}"#, &deep] {
            let body = format!(r#"{{"x":{odd},"a":{{"b":1,"b":2}}}}"#);
            let unclear = check(body.as_bytes());
            assert!(matches!(unclear, Err(Unclear::Unreadable(_))), "{body}: {unclear:?}");
            let body = format!(r#"{{"a":{{"b":1,"b":2}},"x":{odd}}}"#);
            assert_eq!(twice(&body).as_deref(), Some("/a/b"), "{body}");
        }
    }
}
