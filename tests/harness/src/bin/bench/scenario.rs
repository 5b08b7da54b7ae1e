//! What is measured: the objects of each scenario, and the images they name.

use anyhow::Result;
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use policy_operator_harness::cosign::{self, Format, Keys, Kind};
use policy_operator_harness::image::{Bundle, PolicyImage};
use policy_operator_harness::registry::InProcess;

/// One thing to measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scenario {
    /// A bare controller instead of the operator.
    Floor,
    /// A thousand objects on one image.
    OneImage,
    /// The same with a signature to verify.
    OneSignedImage,
    /// A thousand objects, each with its own tag and bundle.
    ThousandTags,
    /// Two hundred objects, each with its own signed image.
    SignedImages,
}

/// The images of a scenario.
pub(crate) struct Images {
    /// One reference per object.
    pub(crate) references: Vec<String>,
    /// The key that must have signed them, PEM.
    pub(crate) public_key: Option<String>,
}

impl Scenario {
    pub(crate) const ALL: [Self; 5] = [
        Self::Floor,
        Self::OneImage,
        Self::OneSignedImage,
        Self::ThousandTags,
        Self::SignedImages,
    ];

    /// Its name in `BENCH_SCENARIOS` and in the report.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Floor => "floor",
            Self::OneImage => "one-image",
            Self::OneSignedImage => "one-signed-image",
            Self::ThousandTags => "thousand-tags",
            Self::SignedImages => "signed-images",
        }
    }

    /// Pushes, and if asked signs, the images for `objects` objects (a fifth of them if each is signed).
    pub(crate) async fn prepare(self, registry: &InProcess, objects: usize) -> Result<Images> {
        let (distinct, objects, signed) = match self {
            Self::Floor | Self::OneImage => (1, objects, false),
            Self::OneSignedImage => (1, objects, true),
            Self::ThousandTags => (objects, objects, false),
            Self::SignedImages => (objects / 5, objects / 5, true),
        };
        let keys = if signed {
            Some(Keys::generate(Kind::P256).await?)
        } else {
            None
        };
        let images = (0..distinct).map(|number| push(registry, number, keys.as_ref()));
        let pushed: Vec<String> = stream::iter(images).buffered(4).try_collect().await?;
        let references = pushed.iter().cycle().take(objects).cloned().collect();
        Ok(Images {
            references,
            public_key: keys.map(|keys| keys.public_pem),
        })
    }
}

async fn push(registry: &InProcess, number: usize, keys: Option<&Keys>) -> Result<String> {
    let image = PolicyImage::new(Bundle::answering(&number.to_string())?);
    // Signed ones in repositories of their own: a signature is looked for beside its image.
    let (repository, tag) = match keys {
        Some(_) => (format!("acme/policy-{number}"), "1.0.0".to_owned()),
        None => ("acme/policy".to_owned(), format!("1.0.{number}")),
    };
    let pushed = image.push(registry.endpoint(), &repository, &tag).await?;
    if let Some(keys) = keys {
        cosign::sign(keys, registry.endpoint(), &pushed.pinned, Format::Bundle).await?;
    }
    Ok(pushed.reference)
}
