//! A container's figures over time: asked of its node, which knows nothing of guests elsewhere.

use proximity_commands::ports::{HypervisorError, Span, UsageSample};
use proximity_domain::{NodeName, Vmid};
use serde_json::Value;

use crate::request::{self, Request, call};
use crate::row::{Row, rows};

/// `GET /nodes/{node}/lxc/{vmid}/rrddata`, averages.
pub(crate) fn request(node: &NodeName, vmid: Vmid, span: Span) -> Request {
    request::guest(call::RRDDATA, node, vmid).with("timeframe", span.as_str()).with("cf", "AVERAGE")
}

/// Rows without a sample have a time and nothing else.
pub(crate) fn read(data: &Value) -> Result<Vec<UsageSample>, HypervisorError> {
    let sample = |row: Row<'_>| {
        Ok(UsageSample {
            time: row.i64("time")?,
            cpu: row.opt_f64("cpu")?,
            memory_used: row.opt_u64("mem")?,
            memory_total: row.opt_u64("maxmem")?,
            disk_used: row.opt_u64("disk")?,
            disk_total: row.opt_u64("maxdisk")?,
            net_in: row.opt_f64("netin")?,
            net_out: row.opt_f64("netout")?,
            disk_read: row.opt_f64("diskread")?,
            disk_write: row.opt_f64("diskwrite")?,
        })
    };
    rows(call::RRDDATA, data)?.into_iter().map(sample).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_row_without_samples_has_a_time_only_and_another_shape_is_refused() {
        let data = json!([{"time": 60}, {"time": "120", "cpu": 0.5, "mem": 1.5e6, "netout": 0.1}]);
        let read_rows = read(&data).unwrap();
        assert_eq!(read_rows[0], UsageSample { time: 60, ..UsageSample::default() });
        assert_eq!((read_rows[1].time, read_rows[1].cpu), (120, Some(0.5)));
        assert_eq!(read_rows[1].memory_used, Some(1_500_000));
        for wrong in
            [json!(null), json!({}), json!([1]), json!([{}]), json!([{"time": 1, "cpu": []}])]
        {
            assert!(matches!(read(&wrong), Err(HypervisorError::Malformed { .. })), "{wrong}");
        }
    }
}
