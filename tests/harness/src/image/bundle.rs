use std::time::Duration;

use anyhow::Result;
use flate2::Compression;
use flate2::write::GzEncoder;
use tar::{Builder, EntryType, Header};

use crate::process::Program;
use crate::run_directory::RunDirectory;
use crate::tools;

/// The bytes of a `bundle.tar.gz`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bundle(pub Vec<u8>);

impl Bundle {
    /// A bundle with the real `opa build`, from files given as relative path and text; `revision` may be empty.
    ///
    /// # Errors
    /// When the program is not built, or refuses the files.
    pub async fn build(files: &[(&str, &str)], revision: &str) -> Result<Self> {
        let directory = RunDirectory::new("opa-build")?;
        for (path, text) in files {
            let file = directory.file("source").join(path);
            std::fs::create_dir_all(file.parent().unwrap_or(directory.path()))?;
            std::fs::write(file, text)?;
        }
        let output = directory.file("bundle.tar.gz");
        // From inside the directory: OPA writes the paths as they are given.
        let mut opa = Program::new(tools::bin("opa")?)
            .directory(directory.file("source"))
            .args(["build", "--bundle", ".", "--output"])
            .arg(&output);
        if !revision.is_empty() {
            opa = opa.args(["--revision", revision]);
        }
        opa.output(Duration::from_mins(1)).await?;
        Ok(Self(std::fs::read(output)?))
    }

    /// A bundle written here, in the layout of `opa build`: files in the order given, names as given (real ones begin
    /// with `/`). It is as valid, or as hostile, as what is put in.
    ///
    /// # Errors
    /// When a name is longer than the 100 bytes of its header field.
    pub fn tar(files: &[(&str, &[u8])]) -> Result<Self> {
        let mut archive = Builder::new(GzEncoder::new(Vec::new(), Compression::default()));
        for (name, content) in files {
            let mut header = Header::new_ustar();
            // Not `set_path`, which refuses the absolute names that OPA writes.
            let field = header.as_old_mut().name.get_mut(..name.len());
            field
                .ok_or_else(|| anyhow::anyhow!("name {name:?} is too long"))?
                .copy_from_slice(name.as_bytes());
            header.set_entry_type(EntryType::Regular);
            header.set_mode(0o600);
            header.set_size(content.len() as u64);
            header.set_cksum();
            archive.append(&header, *content)?;
        }
        Ok(Self(archive.into_inner()?.finish()?))
    }

    /// A small valid bundle whose rule `data.app.answer` is `answer`: as many different bundles as there are answers.
    ///
    /// # Errors
    /// Never in practice.
    pub fn answering(answer: &str) -> Result<Self> {
        let manifest = r#"{"revision":"","roots":["app"],"rego_version":1}"#;
        let rego = format!("package app\n\nanswer := {answer:?}\n");
        Self::tar(&[
            ("/data.json", b"{}\n".as_slice()),
            ("/app/policy.rego", rego.as_bytes()),
            ("/.manifest", manifest.as_bytes()),
        ])
    }

    /// The digest of these bytes, `sha256:…`.
    #[must_use]
    pub fn digest(&self) -> String {
        crate::registry::digest(&self.0)
    }
}
