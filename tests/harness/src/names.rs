//! A host name of a program's own, whose address a test can change or take away.
//!
//! The resolver of the C library asks whom the machine says, which a test must not touch. So the program under test is
//! started with a small library that is loaded before the C library and answers for the one name.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;

use crate::process::Program;
use crate::run_directory::RunDirectory;

const SOURCE: &str = include_str!("names.c");

/// What is answered for the name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lookup {
    /// This address.
    Address(&'static str),
    /// This address, after five seconds.
    Slow(&'static str),
    /// There is no such name.
    NoSuchName,
    /// No name server answered.
    TryAgain,
}

/// The name, for the programs that are started with [`Names::environment`].
#[derive(Debug)]
pub struct Names {
    host: String,
    library: PathBuf,
    directory: PathBuf,
}

impl Names {
    /// Answers for `host` what `lookup` says. Its files are in `directory`.
    ///
    /// # Errors
    /// When there is no C compiler `cc`, which Rust needs to link programs, or when it fails.
    pub async fn new(directory: &RunDirectory, host: &str, lookup: Lookup) -> Result<Self> {
        let (source, library) = (directory.write("names.c", SOURCE)?, directory.file("names.so"));
        let compiler = Program::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]);
        let compiler = compiler.arg(&library).arg(source);
        compiler.output(Duration::from_mins(1)).await?;
        let names = Self {
            host: host.to_owned(),
            library,
            directory: directory.path().to_owned(),
        };
        names.answer(lookup)?;
        Ok(names)
    }

    /// What to add to the environment of a program that shall know this name.
    #[must_use]
    pub fn environment(&self) -> Vec<(String, OsString)> {
        vec![
            ("LD_PRELOAD".to_owned(), self.library.clone().into()),
            ("NAMES_HOST".to_owned(), self.host.clone().into()),
            ("NAMES_ANSWER".to_owned(), self.directory.join("names-answer").into()),
        ]
    }

    /// From now on this is answered for the name.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn answer(&self, lookup: Lookup) -> Result<()> {
        let text = match lookup {
            Lookup::Address(address) => address.to_owned(),
            Lookup::Slow(address) => format!("SLOW {address}"),
            Lookup::NoSuchName => "NXDOMAIN".to_owned(),
            Lookup::TryAgain => "AGAIN".to_owned(),
        };
        // Renamed into place, so that no lookup reads half of it.
        let new = self.directory.join("names-answer.new");
        std::fs::write(&new, text)?;
        Ok(std::fs::rename(new, self.directory.join("names-answer"))?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn look_up(names: &Names, host: &str) -> Option<String> {
        let mut program = Program::new("getent").args(["ahostsv4", host]);
        for (name, value) in names.environment() {
            program = program.env(&name, value);
        }
        let found = program.output(Duration::from_mins(1)).await.ok()?;
        let text = String::from_utf8(found).unwrap();
        text.split_whitespace().next().map(str::to_owned)
    }

    #[tokio::test]
    async fn a_program_sees_the_address_that_a_test_says() {
        let directory = RunDirectory::new("names").unwrap();
        let host = "registry.acme.example.com";
        let names = Names::new(&directory, host, Lookup::Address("127.0.0.2"))
            .await
            .unwrap();
        assert_eq!(look_up(&names, host).await.as_deref(), Some("127.0.0.2"));
        names.answer(Lookup::NoSuchName).unwrap();
        assert_eq!(look_up(&names, host).await, None);
        assert_eq!(look_up(&names, "127.0.0.1").await.as_deref(), Some("127.0.0.1"));
    }
}
