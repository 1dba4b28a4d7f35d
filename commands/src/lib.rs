//! Commands and sagas: who may do what, which streams it touches, and how it is carried out.

pub mod ports;
