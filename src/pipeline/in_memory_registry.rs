//! A registry in memory, for tests and examples.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::ports::{ManifestName, Ports, RawManifest, Registry, RegistryError};
use crate::domain::access::RegistryAccess;
use crate::domain::artifact::Descriptor;
use crate::domain::bundle::Content;
use crate::domain::digest::Digest;
use crate::domain::reference::{Repository, Tag};

/// The methods of [`Registry`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Method {
    /// [`Registry::resolve`].
    Resolve,
    /// [`Registry::manifest`].
    Manifest,
    /// [`Registry::tags`].
    Tags,
    /// [`Registry::referrers`].
    Referrers,
    /// [`Registry::blob`].
    Blob,
}

/// A [`Registry`] that answers from memory. Clones share their content.
#[derive(Debug, Clone, Default)]
pub struct InMemoryRegistry {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    repositories: BTreeMap<Repository, Stored>,
    failures: BTreeMap<Method, RegistryError>,
    calls: BTreeMap<Method, usize>,
}

#[derive(Debug, Default)]
struct Stored {
    tags: BTreeMap<Tag, Digest>,
    manifests: BTreeMap<Digest, RawManifest>,
    blobs: BTreeMap<Digest, Arc<dyn Content>>,
    referrers: BTreeMap<Digest, Vec<Descriptor>>,
}

#[derive(Debug)]
struct Bytes(Vec<u8>);

impl Content for Bytes {
    fn size(&self) -> u64 {
        self.0.len() as u64
    }

    fn open(&self) -> io::Result<Box<dyn io::Read + Send>> {
        Ok(Box::new(io::Cursor::new(self.0.clone())))
    }
}

impl InMemoryRegistry {
    /// Stores a manifest, which can then be requested by its digest.
    #[expect(clippy::must_use_candidate, reason = "storing is what it is called for")]
    pub fn put_manifest(&self, repository: &Repository, media_type: &str, bytes: &[u8]) -> Digest {
        let digest = Digest::of(bytes);
        let manifest = RawManifest {
            digest,
            media_type: media_type.to_owned(),
            bytes: bytes.to_vec(),
        };
        self.store(repository, |stored| stored.manifests.insert(digest, manifest));
        digest
    }

    /// Points a tag at a digest.
    pub fn put_tag(&self, repository: &Repository, tag: Tag, digest: Digest) {
        self.store(repository, |stored| stored.tags.insert(tag, digest));
    }

    /// Stores a blob.
    #[expect(clippy::must_use_candidate, reason = "storing is what it is called for")]
    pub fn put_blob(&self, repository: &Repository, bytes: &[u8]) -> Digest {
        let digest = Digest::of(bytes);
        self.put_blob_as(repository, digest, bytes);
        digest
    }

    /// Stores bytes under a digest that need not be theirs, as a hostile registry would.
    pub fn put_blob_as(&self, repository: &Repository, digest: Digest, bytes: &[u8]) {
        let content: Arc<dyn Content> = Arc::new(Bytes(bytes.to_vec()));
        self.store(repository, |stored| stored.blobs.insert(digest, content));
    }

    /// Lists `referrer` among what refers to `subject`.
    pub fn put_referrer(&self, repository: &Repository, subject: Digest, referrer: Descriptor) {
        self.store(repository, |stored| {
            stored.referrers.entry(subject).or_default().push(referrer);
        });
    }

    /// Makes a method fail from now on, or with `None` work again.
    pub fn fail(&self, method: Method, error: Option<RegistryError>) {
        let mut state = self.lock();
        match error {
            Some(error) => state.failures.insert(method, error),
            None => state.failures.remove(&method),
        };
    }

    /// How often a method was called.
    #[must_use]
    pub fn calls(&self, method: Method) -> usize {
        self.lock().calls.get(&method).copied().unwrap_or_default()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn store<T>(&self, repository: &Repository, change: impl FnOnce(&mut Stored) -> T) {
        let mut state = self.lock();
        change(state.repositories.entry(repository.clone()).or_default());
    }

    /// Counts the call, fails if told to, and otherwise responds with what is stored.
    fn respond<T>(
        &self,
        method: Method,
        repository: &Repository,
        resource: &dyn std::fmt::Display,
        find: impl FnOnce(&Stored) -> Option<T>,
    ) -> Result<T, RegistryError> {
        let mut state = self.lock();
        *state.calls.entry(method).or_default() += 1;
        if let Some(error) = state.failures.get(&method) {
            return Err(error.clone());
        }
        let found = state.repositories.get(repository).and_then(find);
        found.ok_or_else(|| RegistryError::NotFound {
            host: repository.host().to_owned(),
            resource: format!("{}:{resource}", repository.path()),
        })
    }
}

impl Ports for InMemoryRegistry {
    type Registry = Self;

    fn registry(&self) -> &Self {
        self
    }
}

impl Registry for InMemoryRegistry {
    async fn resolve(&self, repository: &Repository, tag: &Tag, _: &RegistryAccess) -> Result<Digest, RegistryError> {
        self.respond(Method::Resolve, repository, tag, |stored| stored.tags.get(tag).copied())
    }

    async fn manifest(
        &self,
        repository: &Repository,
        name: &ManifestName,
        _: &RegistryAccess,
    ) -> Result<RawManifest, RegistryError> {
        self.respond(Method::Manifest, repository, name, |stored| {
            let digest = match name {
                ManifestName::Tag(tag) => stored.tags.get(tag)?,
                ManifestName::Digest(digest) => digest,
            };
            stored.manifests.get(digest).cloned()
        })
    }

    async fn tags(
        &self,
        repository: &Repository,
        _: &RegistryAccess,
        visit: &mut (dyn FnMut(Tag) + Send),
    ) -> Result<usize, RegistryError> {
        let all = |stored: &Stored| Some(stored.tags.keys().cloned().collect::<Vec<_>>());
        let tags = self.respond(Method::Tags, repository, &"tags", all)?;
        let count = tags.len();
        tags.into_iter().for_each(visit);
        Ok(count)
    }

    async fn referrers(
        &self,
        repository: &Repository,
        digest: &Digest,
        _: &RegistryAccess,
    ) -> Result<Vec<Descriptor>, RegistryError> {
        self.respond(Method::Referrers, repository, digest, |stored| {
            Some(stored.referrers.get(digest).cloned().unwrap_or_default())
        })
    }

    async fn blob(
        &self,
        repository: &Repository,
        descriptor: &Descriptor,
        _: &RegistryAccess,
    ) -> Result<Arc<dyn Content>, RegistryError> {
        let digest = &descriptor.digest;
        self.respond(Method::Blob, repository, digest, |stored| {
            stored.blobs.get(digest).cloned()
        })
    }
}
