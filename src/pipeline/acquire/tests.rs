use super::*;
use crate::domain::artifact::{BUNDLE_LAYER, OCI_MANIFEST};
use crate::domain::bundle::testing::Tar;
use crate::domain::trust::TrustPolicy;
use crate::domain::trust::testing::revision;
use crate::pipeline::in_memory_registry::{InMemoryRegistry, Method};
use rstest::rstest;
use serde_json::json;

/// Acquires an image whose manifest says that its bundle has `size` bytes.
async fn acquire_sized(registry: &InMemoryRegistry, size: u64, largest: u64) -> Result<Acquired, AcquireError> {
    let bytes = Tar::policy().gzip();
    let repository = revision(b"").repository;
    let digest = registry.put_blob(&repository, &bytes);
    let manifest = json!({
        "schemaVersion": 2, "mediaType": OCI_MANIFEST,
        "layers": [{ "mediaType": BUNDLE_LAYER, "digest": digest, "size": size }],
    })
    .to_string();
    registry.put_manifest(&repository, OCI_MANIFEST, manifest.as_bytes());
    let revision = revision(manifest.as_bytes());
    let verified = TrustPolicy::NotConfigured.decide(&revision, &[]).unwrap();
    let source = ImageSource::new(&revision.to_string().parse().unwrap(), None, RegistryAccess::default()).unwrap();
    let (limits, blocking) = (Limits::default(), BlockingWork::default());
    let manifest = open(registry, &source, &verified).await?;
    let (repository, access) = (source.repository(), source.access());
    acquire(registry, repository, access, manifest, limits, largest, &blocking).await
}

/// A layer of `size: 2^40` streamed into the cache for as long as the run could last.
#[rstest]
#[case::endless(1 << 40, u64::MAX, Limits::default().compressed_bytes)]
#[case::too_large_for_the_delivery(1001, 1000, 1000)]
#[tokio::test]
async fn a_bundle_that_nothing_can_take_is_not_asked_for(#[case] size: u64, #[case] largest: u64, #[case] limit: u64) {
    let registry = InMemoryRegistry::default();
    let error = acquire_sized(&registry, size, largest).await.unwrap_err();
    assert!(matches!(error, AcquireError::LimitSize { size: found, limit: told } if (found, told) == (size, limit)));
    assert_eq!(
        (error.reason(), error.disposition()),
        (Reason::TooLarge, Disposition::Stalled)
    );
    assert_eq!(registry.calls(Method::Blob), 0);
}

#[tokio::test]
async fn a_bundle_as_large_as_its_delivery_is_acquired() {
    let size = Tar::policy().gzip().len() as u64;
    let acquired = acquire_sized(&InMemoryRegistry::default(), size, size).await.unwrap();
    assert_eq!(acquired.summary().facts.size, size);
}
