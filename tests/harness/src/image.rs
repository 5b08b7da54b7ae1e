//! Makes bundles and pushes them as policy images.

mod bundle;
mod policy_image;

pub use bundle::Bundle;
pub use policy_image::{PolicyImage, Pushed, Shape};
