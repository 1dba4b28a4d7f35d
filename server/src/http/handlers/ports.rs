//! The `ports` of a deployment: old clients send them, and they have to be ports all the same.

use proximity_domain::Port;
use serde_json::Value;

use crate::http::problem::Problem;

/// Refuses what is no object of port to port, by its place.
pub fn check(ports: Option<&Value>) -> Result<(), Problem> {
    let refused =
        |pointer: String, detail: String| Err(Problem::field(pointer, "port.invalid", detail));
    let Some(ports) = ports else { return Ok(()) };
    let Value::Object(ports) = ports else {
        return refused("/ports".to_owned(), "ports is an object of port to port".to_owned());
    };
    for (inside, outside) in ports {
        let pointer = || format!("/ports/{}", inside.replace('~', "~0").replace('/', "~1"));
        if inside.parse::<Port>().is_err() {
            return refused(pointer(), "its name is no port from 1 to 65535".to_owned());
        }
        let number = outside.as_i64().and_then(|number| Port::try_from(number).ok());
        if number.is_none() {
            return refused(pointer(), format!("port {inside} leads to a port from 1 to 65535"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::json;

    use super::*;

    #[test]
    fn ports_are_an_object_of_port_to_port() {
        assert!(check(None).is_ok());
        for fine in [json!({}), json!({ "80": 1 }), json!({ "1": 65_535, "65535": 80 })] {
            assert!(check(Some(&fine)).is_ok(), "{fine}");
        }
        for (wrong, pointer) in [
            (json!({ "80": 0 }), "/ports/80"),
            (json!({ "80": 65_536 }), "/ports/80"),
            (json!({ "80": -1 }), "/ports/80"),
            (json!({ "80": 80.5 }), "/ports/80"),
            (json!({ "80": "x" }), "/ports/80"),
            (json!({ "80": null }), "/ports/80"),
            (json!({ "0": 80 }), "/ports/0"),
            (json!({ "80": 80, "http/x": 80 }), "/ports/http~1x"),
            (json!([80]), "/ports"),
            (json!(8_105), "/ports"),
            (json!("80"), "/ports"),
        ] {
            let problem = check(Some(&wrong)).unwrap_err();
            assert_eq!((problem.status.as_u16(), problem.code), (422, "port.invalid"), "{wrong}");
            assert_eq!(problem.errors[0].pointer, pointer, "{wrong}");
        }
    }
}
