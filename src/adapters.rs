//! One outside system each. They decide nothing and do not know each other.

pub mod registry;
