//! The scripts behind `make`, each against programs that only pretend.
// Says to the lints that helpers are tests too, and may expect.
#![cfg(test)]
#![expect(clippy::disallowed_methods, reason = "test equipment reads and writes its own files")]

mod test_times;
mod tools;
