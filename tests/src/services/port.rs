//! Ports that stay ours between a server's death and its next start.

use std::{
    fs::{self, File},
    net::{Ipv4Addr, TcpListener},
};

use anyhow::{Context, Result};

/// Below the range from which systems take the local ports of outgoing connections, so that no connection of
/// another test sits on one of ours.
const FIRST: u16 = 12_000;
const COUNT: u16 = 18_000;

/// A port of 127.0.0.1 that no other harness process takes while this value lives.
#[derive(Debug)]
pub struct Port {
    number: u16,
    /// The lock ends with the process that holds it, however that ends.
    _lock: File,
}

impl Port {
    /// Takes a free port.
    pub fn free() -> Result<Self> {
        let folder = std::env::temp_dir().join(Self::locks());
        fs::create_dir_all(&folder).context("cannot create the folder of port locks")?;
        // Each process begins elsewhere, so that the usual case needs one look.
        let start = (std::process::id() % 1_800) * 10;
        for step in 0..u32::from(COUNT) {
            let number = FIRST + u16::try_from((start + step) % u32::from(COUNT))?;
            let lock = File::create(folder.join(number.to_string()))?;
            if lock.try_lock().is_ok() && TcpListener::bind((Ipv4Addr::LOCALHOST, number)).is_ok() {
                return Ok(Self { number, _lock: lock });
            }
        }
        anyhow::bail!("every port from {FIRST} on is taken")
    }

    /// The folder of locks, within the folder for temporary files. One for each user, because users cannot
    /// lock each other's files.
    #[must_use]
    pub fn locks() -> String {
        format!("retouch-test-ports-{}", nix::unistd::geteuid())
    }

    /// The port's number.
    #[must_use]
    pub fn number(&self) -> u16 {
        self.number
    }
}
