use std::time::Duration;

use anyhow::{Context, Result, bail};
use reqwest::header::{ACCEPT, CONTENT_TYPE, LOCATION};
use reqwest::{Certificate, Client, Identity, RequestBuilder, Response, Url};
use sha2::{Digest, Sha256};

use crate::tls::Certified;

const MANIFEST_TYPES: &str = "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json";

/// A user of a registry.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// The user's name.
    pub user: String,
    /// The user's password.
    pub password: String,
}

/// Where a registry listens and how to talk to it; pushes what tests need.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// `127.0.0.1:port`, as it stands at the beginning of a reference.
    pub host: String,
    /// The authority that signed its certificate, PEM; none means plain HTTP.
    pub authority: Option<String>,
    /// Who may use it; none means everybody.
    pub credentials: Option<Credentials>,
    client: Client,
}

/// `sha256:` and the lower-case hexadecimal digest of `bytes`.
#[must_use]
pub(crate) fn digest(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut text = String::from("sha256:");
    for byte in Sha256::digest(bytes) {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

impl Endpoint {
    /// Plain HTTP, for everybody.
    pub(crate) fn plain(host: String, credentials: Option<Credentials>) -> Result<Self> {
        Self::new(host, None, None, credentials)
    }

    /// `identity` is the certificate to show to a registry that asks for one.
    pub(crate) fn new(
        host: String,
        authority: Option<String>,
        identity: Option<&Certified>,
        credentials: Option<Credentials>,
    ) -> Result<Self> {
        crate::init();
        let mut builder = Client::builder().timeout(Duration::from_mins(1)).no_proxy();
        if let Some(authority) = &authority {
            builder = builder.tls_certs_only([Certificate::from_pem(authority.as_bytes())?]);
        }
        if let Some(Certified { certificate, key }) = identity {
            builder = builder.identity(Identity::from_pem(format!("{certificate}{key}").as_bytes())?);
        }
        Ok(Self {
            host,
            authority,
            credentials,
            client: builder.build()?,
        })
    }

    /// `http` or `https`.
    #[must_use]
    pub fn scheme(&self) -> &'static str {
        if self.authority.is_some() { "https" } else { "http" }
    }

    /// A client that trusts the registry's authority; it sends no credentials by itself.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The URL of `path`, which is what follows `/v2/`.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("{}://{}/v2/{path}", self.scheme(), self.host)
    }

    /// Stores `bytes` in `repository` and returns their digest.
    ///
    /// # Errors
    /// When the registry refuses.
    pub async fn push_blob(&self, repository: &str, bytes: &[u8]) -> Result<String> {
        let digest = digest(bytes);
        let start = self
            .send(self.client.post(self.url(&format!("{repository}/blobs/uploads/"))))
            .await?;
        let location = start
            .headers()
            .get(LOCATION)
            .context("upload without Location")?
            .to_str()?;
        let mut upload: Url = start.url().join(location)?;
        upload.query_pairs_mut().append_pair("digest", &digest);
        let put = self
            .client
            .put(upload)
            .header(CONTENT_TYPE, "application/octet-stream")
            .body(bytes.to_vec());
        self.send(put).await?;
        Ok(digest)
    }

    /// Stores a manifest under `reference` (a tag, or its digest) and returns its digest.
    ///
    /// # Errors
    /// When the registry refuses.
    pub async fn push_manifest(
        &self,
        repository: &str,
        reference: &str,
        media_type: &str,
        bytes: &[u8],
    ) -> Result<String> {
        let url = self.url(&format!("{repository}/manifests/{reference}"));
        self.send(
            self.client
                .put(url)
                .header(CONTENT_TYPE, media_type)
                .body(bytes.to_vec()),
        )
        .await?;
        Ok(digest(bytes))
    }

    /// Moves the tag `tag` to the manifest `reference` of the same repository.
    ///
    /// # Errors
    /// When the registry has no such manifest or refuses.
    pub async fn retag(&self, repository: &str, reference: &str, tag: &str) -> Result<()> {
        let url = self.url(&format!("{repository}/manifests/{reference}"));
        let manifest = self.send(self.client.get(url).header(ACCEPT, MANIFEST_TYPES)).await?;
        let media_type = manifest
            .headers()
            .get(CONTENT_TYPE)
            .context("manifest without type")?
            .to_str()?
            .to_owned();
        self.push_manifest(repository, tag, &media_type, &manifest.bytes().await?)
            .await?;
        Ok(())
    }

    /// Deletes the manifest `digest`.
    ///
    /// # Errors
    /// When the registry refuses.
    pub async fn delete_manifest(&self, repository: &str, digest: &str) -> Result<()> {
        self.send(
            self.client
                .delete(self.url(&format!("{repository}/manifests/{digest}"))),
        )
        .await?;
        Ok(())
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response> {
        let request = match &self.credentials {
            Some(Credentials { user, password }) => request.basic_auth(user, Some(password)),
            None => request,
        };
        let response = request.send().await?;
        if !response.status().is_success() {
            let (status, url) = (response.status(), response.url().clone());
            bail!("{url}: {status}: {}", response.text().await.unwrap_or_default());
        }
        Ok(response)
    }
}
