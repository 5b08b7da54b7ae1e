//! Signs images with the real cosign, without any service beyond the registry.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use rcgen::{KeyPair, SignatureAlgorithm};

use crate::process::Program;
use crate::registry::Endpoint;
use crate::run_directory::RunDirectory;
use crate::tools;

const LIMIT: Duration = Duration::from_mins(1);

/// The kind of a signing key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// ECDSA on P-256, made by cosign itself: what nearly everybody has.
    P256,
    /// ECDSA on P-384.
    P384,
    /// RSA with 2048 bits.
    Rsa,
    /// Ed25519.
    Ed25519,
}

/// How a signature is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// A Sigstore bundle, attached by the referrers API or its fallback tag: the default of cosign 3.
    Bundle,
    /// A simple-signing layer under the tag `sha256-<hex>.sig`: the only way of cosign 1 and 2.
    Legacy,
}

/// A key pair of cosign, with an empty password.
#[derive(Debug)]
pub struct Keys {
    directory: RunDirectory,
    /// The public key, PEM.
    pub public_pem: String,
}

impl Keys {
    /// Makes a new pair.
    ///
    /// # Errors
    /// When cosign is not built or fails.
    pub async fn generate(kind: Kind) -> Result<Self> {
        let directory = RunDirectory::new("cosign-keys")?;
        let algorithm: Option<&'static SignatureAlgorithm> = match kind {
            Kind::P256 => None,
            Kind::P384 => Some(&rcgen::PKCS_ECDSA_P384_SHA384),
            Kind::Rsa => Some(&rcgen::PKCS_RSA_SHA256),
            Kind::Ed25519 => Some(&rcgen::PKCS_ED25519),
        };
        let arguments = match algorithm {
            None => vec!["generate-key-pair".into(), "--output-key-prefix=cosign".into()],
            Some(algorithm) => {
                let key = KeyPair::generate_for(algorithm)?;
                let path = directory.write("imported.pem", key.serialize_pem())?;
                vec![
                    "import-key-pair".into(),
                    "--output-key-prefix=cosign".into(),
                    "--key".into(),
                    path.into_os_string(),
                ]
            }
        };
        cosign(&directory)?.args(arguments).output(LIMIT).await?;
        let public = directory.file("cosign.pub");
        let public_pem = std::fs::read_to_string(&public).with_context(|| format!("read {}", public.display()))?;
        Ok(Self { directory, public_pem })
    }

    /// The file of the private key, encrypted with an empty password.
    #[must_use]
    pub fn private_key(&self) -> PathBuf {
        self.directory.file("cosign.key")
    }

    /// The file of the public key.
    #[must_use]
    pub fn public_key(&self) -> PathBuf {
        self.directory.file("cosign.pub")
    }
}

/// Signs `pinned`, which is `host/repository@digest`, and stores the signature beside the image.
///
/// # Errors
/// When cosign is not built or fails.
pub async fn sign(keys: &Keys, registry: &Endpoint, pinned: &str, format: Format) -> Result<()> {
    let directory = RunDirectory::new("cosign-sign")?;
    let mut program = cosign(&directory)?
        .args(["sign", "--yes", "--key"])
        .arg(keys.private_key());
    program = match format {
        // A configuration that names no service: no transparency log, no timestamp, no network beyond the registry.
        Format::Bundle => {
            let config = directory.file("signing-config.json");
            cosign(&directory)?
                .args(["signing-config", "create", "--out"])
                .arg(&config)
                .output(LIMIT)
                .await?;
            program.arg("--signing-config").arg(config)
        }
        Format::Legacy => program.args([
            "--use-signing-config=false",
            "--new-bundle-format=false",
            "--tlog-upload=false",
        ]),
    };
    program = match &registry.authority {
        Some(authority) => program
            .arg("--registry-cacert")
            .arg(directory.write("ca.crt", authority)?),
        None => program.arg("--allow-http-registry"),
    };
    if let Some(credentials) = &registry.credentials {
        let user = format!("--registry-username={}", credentials.user);
        program = program
            .arg(user)
            .arg(format!("--registry-password={}", credentials.password));
    }
    program.arg(pinned).output(LIMIT).await?;
    Ok(())
}

/// cosign with a home of its own: the keys, caches and registry logins of whoever runs the tests stay out.
fn cosign(directory: &RunDirectory) -> Result<Program> {
    let home = directory.path();
    Ok(Program::new(tools::bin("cosign")?)
        .directory(home)
        .env("HOME", home)
        .env("DOCKER_CONFIG", home)
        .env("COSIGN_PASSWORD", ""))
}
