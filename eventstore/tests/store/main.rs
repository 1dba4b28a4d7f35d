//! The store's promises, each kept on both databases, with the figures that say so.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod basics;
mod behind;
mod child;
mod counting;
mod crash;
mod faults;
mod foreign;
mod full_disk;
mod heads_dir;
mod lives;
mod lost_heads;
mod older_heads;
mod present;
mod proxy;
mod races;
mod schema;
mod sealing;
mod search;
mod statistics;
mod still;
mod stock;
mod stolen;
mod support;
