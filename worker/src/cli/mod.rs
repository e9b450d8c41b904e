//! The command line. Exit codes: 0 done, 1 some images failed, 2 usage, 3 cannot reach what it needs, 130 interrupted.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::Settings;

mod account;
mod cache;
mod dead;
mod doctor;
mod edit;
mod folders;
mod health;
mod inputs;
mod lanes;
mod logging;
mod migrate;
mod output;
mod rebind;
mod report;
mod routes;
mod say;
mod schema;
mod signals;
mod submit;
mod task;
mod task_list;
mod top;
mod topology;
mod worker;

/// Prompt-driven image edits through a paid API, and never the same edit paid twice.
#[derive(Debug, Parser)]
#[command(name = "retouch", version, after_help = SETTINGS, max_term_width = 100)]
struct Args {
    /// Print one JSON object instead of text
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Edit(edit::Edit),
    Worker(worker::RunWorker),
    Submit(submit::Submit),
    Task(task::Task),
    Top(top::Top),
    Lanes(lanes::Lanes),
    Dead(dead::Dead),
    Cache(cache::Cache),
    Routes(routes::ShowRoutes),
    Migrate(migrate::Migrate),
    Health(health::Health),
    Doctor(doctor::Doctor),
    Topology(topology::Topology),
    Rebind(rebind::Rebind),
    Schema(schema::PrintSchema),
}

const SETTINGS: &str = "\
Settings come from the environment, then from retouch.toml:
  DATABASE_URL          sqlite:///file (default: in the user's data folder) or
                        mysql://user:password@host/database
  AMQP_URL              amqp://… or amqps://…?cacertfile=/path/ca.pem (default: embedded in the SQLite file)
  RETOUCH_BLOBS         file:///folder or s3://bucket/prefix (default: beside the SQLite file)
  RETOUCH_PUBLIC_URL    what result URLs start with (default: the worker's own /blobs/)
  RETOUCH_HTTP          ADDRESS:PORT or off (default: 127.0.0.1:8080)
  RETOUCH_ALLOW_HOSTS   hosts and networks exempt from the private-address guard, comma-separated
  RETOUCH_NAMESPACE     prefix of queue and exchange names (default: retouch)
  RETOUCH_NAME          this worker's name in `retouch top` (default: the host's)
  RETOUCH_ON_AMBIGUOUS  retry (default) or hold: a call that may or may not have been accepted
  DASHSCOPE_API_KEY, OPENAI_API_KEY (or …_FILE, a file that holds it)
                        an editor exists when its key does; the local one always does
  DASHSCOPE_BASE_URL, OPENAI_BASE_URL
                        another region, a workspace host, a compatible gateway
  DASHSCOPE_WORKSPACE   the workspace that calls are made in
  RETOUCH_CONFIG        another file than retouch.toml
  RETOUCH_DECODE_MEMORY_MIB
                        768: MiB of decoded pictures at once in this process; one that needs more runs alone
  RETOUCH_INTAKE_CONCURRENCY, RETOUCH_INTAKE_MEMORY_MIB, RETOUCH_RESULT_MAX_MIB, RETOUCH_LEASE_SECONDS, RETOUCH_SWEEP_SECONDS,
  RETOUCH_PATIENCE_SECONDS,
  RETOUCH_GRACE_SECONDS, RETOUCH_PROBE_SECONDS, RETOUCH_POISON_KILLS
                        256 tasks at a time with at most 256 MiB of pictures, leases of 30 s, a sweep every 5 s, 30 s until it takes a
                        message for lost, 25 s to finish at shutdown, 30 s until a blocked lane is tried again,
                        5 processes that may die of one message before it is given up
  RETOUCH_DEAD_RETENTION_DAYS
                        90: dead letters that were retried or discarded are deleted after so many days; 0 keeps
                        them; open ones always stay
  RETOUCH_CACHE_MAX_BYTES, RETOUCH_CACHE_MAX_AGE_DAYS, RETOUCH_CACHE_MAX_IDLE_DAYS
                        no limits: beyond them entries leave the cache, those first that saved least for their size
  RETOUCH_CACHE_KEEP_HOURS
                        24: what was served so lately stays, whatever the limits say
  RETOUCH_BLOBS_SWEEP_DAYS
                        0 (off), or 7 and more: blobs that nothing names are deleted after so many days
  RUST_LOG              what is logged, e.g. info or retouch_worker=debug
In the file a setting is written in lower case without RETOUCH_, e.g. database_url = \"…\". It also
says what edit types, models and lanes there are, and the rest about editors; `retouch routes` shows
them. A key never stands in it.

Exit codes: 0 done, 1 some images failed, 2 usage, 3 cannot reach what it needs, 130 interrupted.";

/// Why a command did not do its work.
#[derive(Debug)]
enum Failure {
    /// The words or settings are off: exit 2.
    Usage(anyhow::Error),
    /// Something it needs cannot be reached or used: exit 3.
    Unreachable(anyhow::Error),
    /// Told to stop: exit 130.
    Interrupted(anyhow::Error),
}

impl Failure {
    fn unreachable(error: impl Into<anyhow::Error>) -> Self {
        Self::Unreachable(error.into())
    }
}

/// How a command that did its work ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    /// Exit 0.
    Done,
    /// Exit 1.
    SomeFailed,
    /// What is wrong was said on standard output: exit with this code.
    Told(u8),
}

/// Runs the program.
pub fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        // It quotes what was typed, or what a shell made of file names.
        Err(error) if error.use_stderr() => {
            say::complain(error.render().to_string().trim_end());
            return ExitCode::from(2);
        }
        Err(help) => help.exit(),
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            say::complain(format_args!("retouch: cannot start: {error}"));
            return ExitCode::from(3);
        }
    };
    let ended = runtime.block_on(run(args));
    // A decode that is still running must not hold up the end.
    runtime.shutdown_background();
    if let Some(error) = say::unsaid() {
        say::complain(format_args!(
            "retouch: standard output: {error}: what was to be written there is incomplete"
        ));
        return ExitCode::from(3);
    }
    let (error, code) = match ended {
        Ok(Ending::Done) => return ExitCode::SUCCESS,
        Ok(Ending::SomeFailed) => return ExitCode::from(1),
        Ok(Ending::Told(code)) => return ExitCode::from(code),
        Err(Failure::Usage(error)) => (error, 2),
        Err(Failure::Unreachable(error)) => (error, 3),
        Err(Failure::Interrupted(error)) => (error, 130),
    };
    say::complain(format_args!("retouch: {error:#}"));
    ExitCode::from(code)
}

async fn run(args: Args) -> Result<Ending, Failure> {
    crate::tls::init();
    let logging = logging::init(matches!(args.command, Command::Worker(_))).map_err(Failure::Usage)?;
    let ended = command(args).await;
    logging.end().await;
    ended
}

async fn command(args: Args) -> Result<Ending, Failure> {
    let json = args.json;
    match args.command {
        Command::Edit(edit) => edit.run(settings()?, json).await,
        Command::Worker(worker) => worker.run(settings()?).await,
        Command::Submit(submit) => submit.run(settings()?, json).await,
        Command::Task(task) => task.run(&settings()?, json).await,
        Command::Top(top) => top.run(&settings()?, json).await,
        Command::Lanes(lanes) => lanes.run(&settings()?, json).await,
        Command::Dead(dead) => dead.run(settings()?, json).await,
        Command::Cache(cache) => cache.run(settings()?, json).await,
        Command::Migrate(migrate) => {
            migrate.run(&Settings::load_database().map_err(Failure::Usage)?, json).await
        }
        Command::Health(health) => health.run(json).await,
        Command::Doctor(doctor) => doctor.run(json).await,
        Command::Topology(topology) => topology.run(json).await,
        Command::Rebind(rebind) => rebind.run(&settings()?, json).await,
        Command::Routes(routes) => routes.run(json),
        Command::Schema(schema) => schema.run(),
    }
}

fn settings() -> Result<Settings, Failure> {
    let settings = Settings::load().map_err(Failure::Usage)?;
    // What cannot work together is a mistake of who set it, and shows before anything is reached for.
    crate::app::editors(&settings).map_err(Failure::Usage)?;
    Ok(settings)
}
