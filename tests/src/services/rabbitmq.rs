//! A private RabbitMQ: one node with a port mapper (epmd), cookie, name, ports and folders of its own, so
//! that it neither sees nor disturbs another node on this machine.

use std::{
    fs::{self, File, Permissions},
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use tempfile::TempDir;

use super::{Certificates, Port, STOP_WITHIN, bare, program, ready};
use crate::process::Group;

/// The distribution's wrapper in /usr/sbin changes user and folders; the scripts behind it do as they are
/// told.
const SCRIPTS: &str = "/usr/lib/rabbitmq/bin";

/// What an AMQP client says first. The broker answers with its `connection.start`.
const HELLO: &[u8] = b"AMQP\x00\x00\x09\x01";

/// A request of the port mapper's protocol: two bytes of length, and `n` for "names".
const LIST_NODES: &[u8] = b"\x00\x01n";

/// For every Erlang program: listen on the loopback interface only, and start no port mapper when ours does
/// not answer.
const ERLANG: &str = "-kernel inet_dist_use_interface {127,0,0,1} -start_epmd false";

/// One node and all that belongs to it.
#[derive(Debug)]
pub struct RabbitMq {
    server: Option<Group>,
    epmd: Option<Group>,
    amqp: Port,
    /// Where it speaks TLS, if it does.
    amqps: Option<Port>,
    http: Port,
    mapper: Port,
    distribution: Port,
    folder: TempDir,
}

impl RabbitMq {
    /// Starts a fresh node, with the management API, and waits until it takes connections.
    pub async fn start() -> Result<Self> {
        Self::start_new("", None).await
    }

    /// As [`RabbitMq::start`], with further settings of the application `rabbit`, as Erlang terms, each after a comma:
    /// `", {consumer_timeout, 5000}"`.
    pub async fn start_with(settings: &str) -> Result<Self> {
        Self::start_new(settings, None).await
    }

    /// As [`RabbitMq::start`]; a port for TLS comes beside that for the harness, and asks for a client's certificate where it
    /// has one.
    pub async fn start_tls(certificates: &Certificates) -> Result<Self> {
        Self::start_new("", Some(certificates)).await
    }

    async fn start_new(settings: &str, certificates: Option<&Certificates>) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("retouch-rabbitmq-").tempdir()?;
        let mut this = Self {
            server: None,
            epmd: None,
            amqp: Port::free()?,
            amqps: certificates.map(|_| Port::free()).transpose()?,
            http: Port::free()?,
            mapper: Port::free()?,
            distribution: Port::free()?,
            folder,
        };
        this.configure(settings, certificates)?;
        this.launch_mapper().await?;
        this.launch().await?;
        Ok(this)
    }

    /// The default virtual host, as the user `guest`.
    #[must_use]
    pub fn amqp_url(&self) -> String {
        format!("amqp://guest:guest@127.0.0.1:{}/%2f", self.amqp.number())
    }

    /// The default virtual host over TLS.
    #[must_use]
    pub fn amqps_url(&self) -> String {
        let port = self.amqps.as_ref().expect("it was started without TLS").number();
        format!("amqps://guest:guest@127.0.0.1:{port}/%2f")
    }

    /// The root of the management API, without a path.
    #[must_use]
    pub fn http_url(&self) -> String {
        format!("http://guest:guest@127.0.0.1:{}", self.http.number())
    }

    /// The AMQP address, for a proxy in front of it.
    #[must_use]
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.amqp.number())
    }

    /// Runs `rabbitmqctl` with these arguments and returns what it printed.
    pub async fn ctl(&self, arguments: &[&str]) -> Result<String> {
        let mut command = self.script("rabbitmqctl")?;
        command.arg("--node").arg(self.node()).arg("--quiet").args(arguments);
        let output = tokio::process::Command::from(command).kill_on_drop(true).output().await?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "rabbitmqctl {arguments:?} failed ({}): {errors}", output.status);
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Makes the queues declared so far survive a kill.
    ///
    /// Observed with 3.10.8: the file that says which log belongs to which quorum queue is written up to half
    /// a second after the declaration. A node killed before that gives the queue a new, empty log at its next
    /// start, and never a leader: every use of it ends in a timeout. Call this after declaring and before
    /// [`RabbitMq::kill9`], unless that window is what the test is about.
    pub async fn sync_declarations(&self) -> Result<()> {
        self.ctl(&["eval", "[ok = dets:sync(Table) || Table <- dets:all()]."]).await.map(drop)
    }

    /// Kills the node as a power cut would end it; [`RabbitMq::stop_and_restart`] brings it back.
    ///
    /// Quorum queues that were declared just before may not come back: [`RabbitMq::sync_declarations`].
    pub fn kill9(&mut self) {
        self.server = None;
    }

    /// Stops the node in good order if it runs, and starts it again with its queues, on the same ports.
    ///
    /// Stopping takes about 6 s: of these, 5 are a timeout in the management plugin.
    pub async fn stop_and_restart(&mut self) -> Result<()> {
        self.stop().await;
        self.launch().await
    }

    /// Stops the node in good order if it runs.
    pub async fn stop(&mut self) {
        if let Some(server) = self.server.take() {
            server.signal(Signal::SIGTERM);
            // What does not obey in time is killed by the drop.
            let _ = tokio::time::timeout(STOP_WITHIN, server.ended()).await;
        }
    }

    fn node(&self) -> String {
        format!("retouch{}@localhost", self.amqp.number())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn configure(&self, settings: &str, certificates: Option<&Certificates>) -> Result<()> {
        let cookie = self.path(".erlang.cookie");
        fs::write(&cookie, format!("{}{}", std::process::id(), self.amqp.number()))?;
        // Erlang refuses a cookie that others can read.
        fs::set_permissions(&cookie, Permissions::from_mode(0o400))?;
        fs::write(self.path("plugins"), "[rabbitmq_management].")?;
        // The broker would block publishers on a machine that is merely full of build output, and the
        // statistics collector costs processor time that the tests need; counts of messages do without it.
        let mut config = format!(
            "listeners.tcp.1 = 127.0.0.1:{amqp}\n\
             management.tcp.ip = 127.0.0.1\n\
             management.tcp.port = {http}\n\
             management_agent.disable_metrics_collector = true\n\
             disk_free_limit.absolute = 50MB\n\
             vm_memory_high_watermark.absolute = 2GB\n\
             log.console = false\n\
             log.file.level = info\n",
            amqp = self.amqp.number(),
            http = self.http.number(),
        );
        if let (Some(port), Some(certificates)) = (&self.amqps, certificates) {
            let (cert, key) = certificates.of("server");
            config += &format!(
                "listeners.ssl.1 = 127.0.0.1:{}\n\
                 ssl_options.cacertfile = {}\n\
                 ssl_options.certfile = {}\n\
                 ssl_options.keyfile = {}\n\
                 ssl_options.verify = verify_peer\n\
                 ssl_options.fail_if_no_peer_cert = false\n",
                port.number(),
                certificates.ca().display(),
                cert.display(),
                key.display(),
            );
        }
        fs::write(self.path("rabbitmq.conf"), config)?;
        // A quorum queue tells its counts at each tick: every 5 s by default, far too late for a test.
        let advanced = format!("[{{rabbit, [{{quorum_tick_interval, 200}}{settings}]}}].");
        fs::write(self.path("advanced.config"), advanced)?;
        Ok(())
    }

    /// The node would start a port mapper of its own, in the background, which would never be stopped.
    async fn launch_mapper(&mut self) -> Result<()> {
        let mut command = bare(&program(&["/usr/bin/epmd"], "epmd")?, self.folder.path());
        let port = self.mapper.number();
        command.args(["-address", "127.0.0.1", "-port", &port.to_string()]);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let epmd = Group::spawn(&mut command, Some(self.folder.path()))?;
        ready(&epmd, port, LIST_NODES, &self.path("output")).await.context("epmd")?;
        self.epmd = Some(epmd);
        Ok(())
    }

    async fn launch(&mut self) -> Result<()> {
        let output = self.path("output");
        let log = File::options().create(true).append(true).open(&output)?;
        let mut command = self.script("rabbitmq-server")?;
        // By default the script stays as the parent of the node, and it would be the script that we signal
        // and wait for. Where input is allowed it becomes the node.
        command.env("RABBITMQ_ALLOW_INPUT", "true").env("RABBITMQ_SERVER_START_ARGS", "-noshell -noinput");
        command.stdout(log.try_clone()?).stderr(log);
        let server = Group::spawn(&mut command, Some(self.folder.path()))?;
        ready(&server, self.amqp.number(), HELLO, &output).await.context("RabbitMQ")?;
        self.server = Some(server);
        Ok(())
    }

    fn script(&self, name: &str) -> Result<Command> {
        let mut command = bare(&program(&[&format!("{SCRIPTS}/{name}")], name)?, self.folder.path());
        command
            .env("ERL_EPMD_PORT", self.mapper.number().to_string())
            .env("ERL_EPMD_ADDRESS", "127.0.0.1")
            .env("RABBITMQ_NODENAME", self.node())
            .env("RABBITMQ_DIST_PORT", self.distribution.number().to_string())
            .env("RABBITMQ_CONFIG_FILE", self.path("rabbitmq.conf"))
            .env("RABBITMQ_ADVANCED_CONFIG_FILE", self.path("advanced.config"))
            .env("RABBITMQ_ENABLED_PLUGINS_FILE", self.path("plugins"))
            .env("RABBITMQ_MNESIA_BASE", self.path("mnesia"))
            .env("RABBITMQ_LOG_BASE", self.path("log"))
            // The packaged settings file would override ours.
            .env("RABBITMQ_CONF_ENV_FILE", "/dev/null")
            .env("ERL_AFLAGS", ERLANG);
        Ok(command)
    }
}
