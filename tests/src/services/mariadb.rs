//! A private MariaDB. As durable as a real one: a test that kills it sees the true losses of a crash.

use std::{fs::File, path::PathBuf, process::Stdio};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use tempfile::TempDir;

use super::{Certificates, Port, STOP_WITHIN, bare, program, ready, tail};
use crate::process::Group;

/// One server and its data folder.
#[derive(Debug)]
pub struct MariaDb {
    server: Option<Group>,
    program: PathBuf,
    port: Port,
    folder: TempDir,
    /// Further options, for every start.
    options: Vec<String>,
}

impl MariaDb {
    /// Creates an empty server and waits until it takes connections.
    pub async fn start() -> Result<Self> {
        Self::start_with(&[]).await
    }

    /// As [`MariaDb::start`]; takes connections with TLS only.
    pub async fn start_tls(certificates: &Certificates) -> Result<Self> {
        let (cert, key) = certificates.of("server");
        let file = |option: &str, file: PathBuf| format!("--ssl-{option}={}", file.display());
        let [ca, cert, key] = [file("ca", certificates.ca()), file("cert", cert), file("key", key)];
        Self::start_with(&[&ca, &cert, &key, "--require-secure-transport=ON"]).await
    }

    /// As [`MariaDb::start`], with further options, also for the creation.
    pub async fn start_with(options: &[&str]) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("retouch-mariadb-").tempdir()?;
        let mut this = Self {
            server: None,
            program: program(&["/usr/sbin/mariadbd"], "mariadbd")?,
            port: Port::free()?,
            folder,
            options: options.iter().map(|option| (*option).to_owned()).collect(),
        };
        this.install().await?;
        this.launch().await?;
        Ok(this)
    }

    /// The URL of a database, as root without a password; of the server itself when `database` is empty.
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        format!("mysql://root@127.0.0.1:{}/{database}", self.port.number())
    }

    /// The server's address, for a proxy in front of it.
    #[must_use]
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port.number())
    }

    /// Kills the server as a power cut would end it; [`MariaDb::restart`] brings it back.
    pub fn kill9(&mut self) {
        self.server = None;
    }

    /// Stops the server in good order if it runs, and starts it again on the same data and port.
    pub async fn restart(&mut self) -> Result<()> {
        self.stop().await;
        self.launch().await
    }

    /// As [`MariaDb::restart`], with other further options from here on.
    pub async fn restart_with(&mut self, options: &[&str]) -> Result<()> {
        self.options = options.iter().map(|option| (*option).to_owned()).collect();
        self.restart().await
    }

    /// The last log lines of a server that ended unexpectedly.
    #[must_use]
    pub fn died(&self) -> Option<String> {
        let status = self.server.as_ref()?.status()?;
        let said = std::fs::read_to_string(self.log()).unwrap_or_default();
        // A crash fills hundreds of lines, of which the first name the cause.
        let crash = said.lines().skip_while(|line| !line.contains("[ERROR]")).take(60);
        Some(format!("{status}\n{}", crash.collect::<Vec<_>>().join("\n")))
    }

    /// Stops the server in good order if it runs.
    pub async fn stop(&mut self) {
        if let Some(server) = self.server.take() {
            server.signal(Signal::SIGTERM);
            // What does not obey in time is killed by the drop.
            let _ = tokio::time::timeout(STOP_WITHIN, server.ended()).await;
        }
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    async fn install(&self) -> Result<()> {
        let mut command =
            bare(&program(&["/usr/bin/mariadb-install-db"], "mariadb-install-db")?, self.folder.path());
        command.args(["--no-defaults", "--skip-test-db", "--skip-name-resolve"]);
        // The usual root of a Debian server logs in by its system user through the socket; ours does over
        // TCP.
        command.arg("--auth-root-authentication-method=normal").args(user());
        command.arg(format!("--datadir={}", self.data().display())).args(&self.options);
        command.env("TMPDIR", self.folder.path());
        let log = File::create(self.log())?;
        command.stdout(log.try_clone()?).stderr(log);
        let install = Group::spawn(&mut command, Some(self.folder.path()))?;
        let status = install.ended().await.context("mariadb-install-db vanished")?;
        ensure!(status.success(), "mariadb-install-db failed ({status}):\n{}", tail(&self.log()));
        Ok(())
    }

    async fn launch(&mut self) -> Result<()> {
        let mut command = bare(&self.program, self.folder.path());
        command.arg("--no-defaults").args(user()).arg("--skip-name-resolve");
        command.arg(format!("--datadir={}", self.data().display()));
        command.arg(format!("--socket={}", self.folder.path().join("sock").display()));
        command.arg(format!("--pid-file={}", self.folder.path().join("pid").display()));
        // A server that starts deletes what is called `#sql…` in its folder for temporary tables, also what another one is using.
        command.arg(format!("--tmpdir={}", self.folder.path().display()));
        command.args(["--bind-address=127.0.0.1", &format!("--port={}", self.port.number())]);
        // A default, written down because the crash tests rest on it.
        command.arg("--innodb-flush-log-at-trx-commit=1");
        // What the packages configure; the compiled-in default is latin1.
        command.args(["--character-set-server=utf8mb4", "--collation-server=utf8mb4_general_ci"]);
        // Every test has pools of its own.
        command.arg("--max-connections=1000").args(&self.options);
        let log = File::options().create(true).append(true).open(self.log())?;
        command.stdout(Stdio::from(log.try_clone()?)).stderr(log);
        let server = Group::spawn(&mut command, Some(self.folder.path()))?;
        // The server speaks first.
        ready(&server, self.port.number(), b"", &self.log()).await.context("MariaDB")?;
        self.server = Some(server);
        Ok(())
    }
}

/// MariaDB refuses to run as root unless told to.
fn user() -> Option<&'static str> {
    nix::unistd::geteuid().is_root().then_some("--user=root")
}
