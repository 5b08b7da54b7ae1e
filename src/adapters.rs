//! One outside system each, behind the ports of [`crate::pipeline`].
//!
//! **Architecture invariant:** an adapter decides nothing and knows no other adapter.

pub mod registry;
