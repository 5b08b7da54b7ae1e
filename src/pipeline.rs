//! The use cases that every program shares, and the ports they need from the outside.
//!
//! **Architecture invariant:** nothing here knows HTTP, Git, Kubernetes or files. What is outside is asked through a
//! trait in [`ports`], in the words of [`crate::domain`].

mod classify;
pub mod failure;
pub mod memory;
pub mod ports;
pub mod verify;
