//! Tests that need more than one module, or a real program beside them. One binary, so that they link once.
// Says to the lints that helpers are tests too, and may expect.
#![cfg(test)]
#![expect(clippy::disallowed_methods, reason = "tests read and write their own files")]

mod chaos;
mod crd;
mod docs;
mod layers;
mod leader;
mod reconcile;
mod registry;
mod render;
mod trust;
