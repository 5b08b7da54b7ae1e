//! Free ports on loopback.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result};

/// Below the range from which kernels choose ports for outgoing connections, so that nothing takes one between our
/// look and the program's bind.
const FIRST: u32 = 12_000;
const COUNT: u32 = 20_000;
/// Ports that one process uses before it meets those of the process with the next id.
const STRIDE: u32 = 97;

/// A port that is free now, and that this process gets only once.
///
/// # Errors
/// When no port of the range is free.
pub fn free() -> Result<u16> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let base = std::process::id().wrapping_mul(STRIDE);
    (0..COUNT)
        .map(|_| FIRST + base.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % COUNT)
        .filter_map(|port| u16::try_from(port).ok())
        .find(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok())
        .context("no free port on loopback")
}
