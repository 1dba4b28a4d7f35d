//! What each step would ask Proxmox to do, told before anything is done.

use proximity_domain::plan::{CloneWay, GuestRef, Plan, Source};

/// A call with an effect; calls that only look are not told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    /// The step that makes it.
    pub step: String,
    /// Method and path below `/api2/json`.
    pub call: String,
    /// When it is made only then, e.g. for a template that is not there yet.
    pub only: Option<&'static str>,
}

/// The calls of a plan's steps, in order, when nothing fails. A step that this does not know makes
/// none here: the steps themselves are told besides.
pub fn calls(plan: &Plan, steps: &[String]) -> Vec<Planned> {
    let Some(guest) = plan.guest() else { return Vec::new() };
    let (node, vmid) = (&guest.node, guest.vmid);
    let mut told = Vec::new();
    for step in steps {
        let mut tell = |call: String, only: Option<&'static str>| {
            told.push(Planned { step: step.clone(), call, only });
        };
        let status = |what: &str| format!("POST /nodes/{node}/lxc/{vmid}/status/{what}");
        let config = || format!("PUT /nodes/{node}/lxc/{vmid}/config");
        match (step.as_str(), plan) {
            ("ensure_template", _) => {
                tell(format!("POST /nodes/{node}/aplinfo"), Some("if the template is not there"));
            }
            ("ensure_oci_image", Plan::Deploy(plan)) => {
                let storage = &plan.template_storage;
                let call = format!("POST /nodes/{node}/storage/{storage}/oci-registry-pull");
                tell(call, Some("if the image is not there"));
            }
            ("create_container", Plan::Deploy(plan)) => {
                tell(format!("POST /nodes/{node}/lxc"), None);
                if matches!(plan.source, Source::Oci { .. }) {
                    tell(config(), Some("if the image needs an entrypoint or environment"));
                }
            }
            ("start", _) => tell(status("start"), Some("if it does not run")),
            ("stop", Plan::Stop(plan) | Plan::Restart(plan)) if plan.force => {
                tell(status("stop"), Some("if it runs"));
            }
            ("stop", _) => {
                tell(status("shutdown"), Some("if it runs"));
                tell(status("stop"), Some("if it does not end by itself"));
            }
            ("snapshot_source" | "clone_container" | "remove_snapshot", Plan::Clone(plan)) => {
                let source = format!("/nodes/{node}/lxc/{}", plan.source_guest.vmid);
                let call = match (step.as_str(), &plan.way) {
                    ("snapshot_source", _) => format!("POST {source}/snapshot"),
                    ("clone_container", _) => format!("POST {source}/clone"),
                    (_, CloneWay::Snapshot { name }) => format!("DELETE {source}/snapshot/{name}"),
                    _ => continue,
                };
                tell(call, None);
            }
            ("stop_source" | "start_source", Plan::Clone(plan)) => {
                let source = format!("POST /nodes/{node}/lxc/{}/status", plan.source_guest.vmid);
                let what = if step == "stop_source" { "shutdown" } else { "start" };
                tell(format!("{source}/{what}"), None);
            }
            ("configure_clone", _) => {
                tell(config(), Some("if it has an entered address, or no protection"));
            }
            ("mark_container" | "unmark_container", _) => tell(config(), None),
            ("restore_container" | "overwrite", _) => {
                tell(format!("POST /nodes/{node}/lxc"), None);
                tell(config(), Some("if Proxmox left its environment out"));
            }
            ("stop_restored", _) => tell(status("shutdown"), None),
            ("stop_original" | "unprotect_original" | "destroy_original", Plan::Restore(plan)) => {
                let GuestRef { node, vmid, .. } = &plan.original;
                let original = format!("/nodes/{node}/lxc/{vmid}");
                let (call, only) = match step.as_str() {
                    "stop_original" => {
                        (format!("POST {original}/status/shutdown"), Some("if it runs"))
                    }
                    "unprotect_original" => {
                        (format!("PUT {original}/config"), Some("if it is protected"))
                    }
                    _ => {
                        let only = Some("if it is protected");
                        tell(format!("PUT {original}/config"), only);
                        (format!("DELETE {original}"), None)
                    }
                };
                tell(call, only);
            }
            ("unprotect", _) => tell(config(), Some("if it is protected")),
            ("destroy", _) => tell(format!("DELETE /nodes/{node}/lxc/{vmid}"), None),
            _ => {}
        }
    }
    told
}
