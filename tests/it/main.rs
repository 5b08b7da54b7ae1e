//! Tests that need more than one module, or a real program beside them. One binary, so that they link once.

mod layers;
mod leader;
