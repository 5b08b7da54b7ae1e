//! A wall clock of a program's own, which a test can step.
//!
//! Linux has no namespace for the wall clock, and a test must not touch the machine's. So the program under test is
//! started with a small library that is loaded before the C library and answers `clock_gettime` in its place.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::process::Program;
use crate::run_directory::RunDirectory;

const SOURCE: &str = include_str!("clock.c");

/// The wall clock of the programs that are started with [`Clock::environment`].
#[derive(Debug)]
pub struct Clock {
    library: PathBuf,
    offset: PathBuf,
}

impl Clock {
    /// A clock that shows the machine's time at first. Its files are in `directory`.
    ///
    /// # Errors
    /// When there is no C compiler `cc`, which Rust needs to link programs, or when it fails.
    pub async fn new(directory: &RunDirectory) -> Result<Self> {
        let (source, library) = (directory.write("clock.c", SOURCE)?, directory.file("clock.so"));
        let compiler = Program::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]);
        let compiler = compiler.arg(&library).arg(source);
        compiler.output(Duration::from_mins(1)).await?;
        let offset = directory.write("clock-offset", 0_i64.to_ne_bytes())?;
        Ok(Self { library, offset })
    }

    /// What to add to the environment of a program that shall have this clock.
    #[must_use]
    pub fn environment(&self) -> Vec<(String, OsString)> {
        vec![
            ("LD_PRELOAD".to_owned(), self.library.clone().into()),
            ("CLOCK_OFFSET".to_owned(), self.offset.clone().into()),
        ]
    }

    /// From now on the clock shows `seconds` more than the machine's, or less.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn step(&self, seconds: i64) -> Result<()> {
        use std::os::unix::fs::FileExt as _;
        // In place: the programs have mapped this file.
        let file = std::fs::OpenOptions::new().write(true).open(&self.offset)?;
        file.write_all_at(&seconds.to_ne_bytes(), 0).context("step the clock")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn now(clock: &Clock) -> i64 {
        let mut date = Program::new("date").arg("+%s");
        for (name, value) in clock.environment() {
            date = date.env(&name, value);
        }
        let seconds = date.output(Duration::from_secs(10)).await.unwrap();
        String::from_utf8(seconds).unwrap().trim().parse().unwrap()
    }

    #[tokio::test]
    async fn a_program_sees_the_steps_of_its_clock() {
        let directory = RunDirectory::new("clock").unwrap();
        let clock = Clock::new(&directory).await.unwrap();
        let start = now(&clock).await;
        for step in [100_000, -100_000, 0] {
            clock.step(step).unwrap();
            let seen = now(&clock).await - start;
            assert!((step..step + 1000).contains(&seen), "{seen} instead of {step}");
        }
    }
}
