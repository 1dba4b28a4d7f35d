//! The handlers, one file for each group of calls: parse, call the command or the view, answer.

pub mod catalog;
pub mod core;
pub mod health;
