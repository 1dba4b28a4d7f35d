//! What a credential may do, as a request and its answer.

use std::collections::BTreeMap;

use proximity_commands::ports::HypervisorError;
use serde_json::Value;

use crate::request::{Request, call};
use crate::row::Row;

/// Which privileges this credential has on one path.
pub(crate) fn permissions(path: &str) -> Request {
    Request::new(call::PERMISSIONS, &[]).with("path", path)
}

/// Each privilege on the path, with whether it holds below it; a path without any is left out.
pub(crate) fn read(path: &str, data: &Value) -> Result<BTreeMap<String, bool>, HypervisorError> {
    let row = Row::of(call::PERMISSIONS, data)?;
    let Some(rights) = row.value(path) else { return Ok(BTreeMap::new()) };
    let rights = Row::of(call::PERMISSIONS, rights)?;
    rights.keys().map(|(name, _)| Ok((name.clone(), rights.flag(name)?))).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use serde_json::json;

    use super::*;

    #[test]
    fn a_privilege_that_does_not_hold_below_its_path_is_told_apart() {
        let data = json!({"/vms": {"VM.Audit": 1, "VM.Clone": 0}});
        let rights = read("/vms", &data).unwrap();
        assert_eq!(rights.get("VM.Audit"), Some(&true));
        assert_eq!(rights.get("VM.Clone"), Some(&false));
        assert!(read("/nodes", &data).unwrap().is_empty());
        for broken in [json!([]), json!({"/vms": []}), json!({"/vms": {"VM.Audit": "perhaps"}})] {
            assert!(read("/vms", &broken).is_err(), "{broken}");
        }
    }
}
