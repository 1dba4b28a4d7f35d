//! Parameter verification, with the texts that Proxmox answers.

pub(crate) mod formats;
pub(crate) mod property;
mod spec;
mod verify;

pub(crate) use spec::{Kind, Param, boolean, choice, int, need, num, opt, text, vmid};
pub(crate) use verify::{Params, verify};
