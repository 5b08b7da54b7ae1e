//! One external system each, behind the ports of [`crate::pipeline`].
//!
//! **Architecture invariant:** an adapter decides nothing and knows no other adapter. They share [`network`], which is
//! below them all and knows none of them.

pub mod network;
pub mod registry;
