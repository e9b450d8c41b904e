//! Private servers for the tests: a RabbitMQ and a MariaDB of the installed packages, each in a folder of its
//! own, on free ports of 127.0.0.1, gone without a trace on drop. And an S3 server, in the test's own process.
//!
//! The suite shares one of each, started by `with-servers`. A test that stops or kills a server starts its
//! own.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{process::Group, wait};

mod certificates;
mod mariadb;
mod port;
mod rabbitmq;
mod s3;

pub use certificates::Certificates;
pub use mariadb::MariaDb;
pub use port::Port;
pub use rabbitmq::RabbitMq;
pub use s3::{S3, S3Fault};

/// Two cores under a full test run start a broker slowly; far beyond what an idle machine needs.
const START_WITHIN: Duration = Duration::from_secs(180);

/// A server that goes down on request does so within this time, or is killed.
const STOP_WITHIN: Duration = Duration::from_secs(30);

/// The program by its first existing path, or by name on the `PATH`.
fn program(paths: &[&str], name: &str) -> Result<PathBuf> {
    let on_path = std::env::var_os("PATH").unwrap_or_default();
    let known = paths.iter().map(PathBuf::from);
    let searched = std::env::split_paths(&on_path).map(|folder| folder.join(name));
    known
        .chain(searched)
        .find(|path| path.is_file())
        .with_context(|| format!("`{name}` is not installed; tests/run installs it, or says how"))
}

/// A command that inherits nothing but the `PATH`, so that no setting of this machine leaks into the server.
fn bare(program: &Path, home: &Path) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("HOME", home).env("LANG", "C.UTF-8").current_dir(home);
    command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command.stdin(std::process::Stdio::null());
    command
}

/// Waits until the server on `port` answers `hello` with at least one byte, or says why it never will.
async fn ready(server: &Group, port: u16, hello: &[u8], log: &Path) -> Result<()> {
    let answered = wait::poll(START_WITHIN, async || match server.status() {
        Some(status) => Some(Err(status)),
        None => answers(port, hello).await.then_some(Ok(())),
    });
    match answered.await {
        Some(Ok(())) => Ok(()),
        Some(Err(status)) => bail!("the server ended ({status}) instead of starting:\n{}", tail(log)),
        None => bail!("the server was not ready after {START_WITHIN:?}:\n{}", tail(log)),
    }
}

async fn answers(port: u16, hello: &[u8]) -> bool {
    let exchange = async {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
        stream.write_all(hello).await.ok()?;
        stream.read_u8().await.ok()
    };
    matches!(tokio::time::timeout(Duration::from_secs(5), exchange).await, Ok(Some(_)))
}

/// The end of a log, for an error message.
fn tail(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(30)..].join("\n")
}
