//! Values and rules, and nothing else.
//!
//! **Architecture invariant:** nothing here does I/O, is async, reads the clock or the environment, or knows that
//! Kubernetes exists. Bytes come in through [`std::io::Read`] or slices, decisions go out as values.

pub mod access;
pub mod artifact;
pub(crate) mod bounded;
pub mod bundle;
pub mod cancellation;
pub mod digest;
pub mod glob;
pub mod reference;
pub mod revision;
pub mod source;
mod strict_json;
pub mod text;
pub mod trust;
