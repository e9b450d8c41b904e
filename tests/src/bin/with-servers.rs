//! `with-servers -- COMMAND…` starts one RabbitMQ and one MariaDB, tells COMMAND through its environment
//! where they are, ends with COMMAND's exit code, and leaves nothing running, however it ends.

// The messages are what this program is for.
#![allow(clippy::print_stderr)]

use std::{
    os::unix::process::ExitStatusExt,
    process::{Command, ExitCode, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use retouch_tests::{
    env::{AMQP_URL, MYSQL_URL, RABBITMQ_HTTP_URL},
    process::Group,
    services::{MariaDb, RabbitMq},
};
use tokio::signal::unix::{SignalKind, signal};

/// A test runner that was asked to stop first ends its tests; after this time it is killed.
const GRACE: Duration = Duration::from_secs(20);

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let mut command = command()?;
    let mut stop = Stop::new()?;
    let started = tokio::select! {
        started = start() => started?,
        signal = stop.asked() => return Ok(code_of_signal(signal)),
    };
    let (rabbitmq, mariadb) = started;
    command
        .env(AMQP_URL, rabbitmq.amqp_url())
        .env(RABBITMQ_HTTP_URL, rabbitmq.http_url())
        .env(MYSQL_URL, mariadb.url(""));
    let code = run(&mut command, &mut stop).await;
    if let Some(said) = mariadb.died() {
        eprintln!("with-servers: MariaDB ended by itself: {said}");
    }
    code
    // The servers are dropped, that is stopped, here.
}

fn command() -> Result<Command> {
    let mut arguments = std::env::args_os().skip(1).peekable();
    let _ = arguments.next_if(|first| first == "--");
    let Some(program) = arguments.next() else { bail!("usage: with-servers -- COMMAND [ARGUMENT…]") };
    let mut command = Command::new(program);
    // In a group of its own the command may not read the terminal; it would be stopped if it tried.
    command.args(arguments).stdin(Stdio::null());
    Ok(command)
}

async fn start() -> Result<(RabbitMq, MariaDb)> {
    let begun = Instant::now();
    let rabbitmq = async { Ok::<_, anyhow::Error>((RabbitMq::start().await?, begun.elapsed())) };
    let mariadb = async { Ok::<_, anyhow::Error>((MariaDb::start().await?, begun.elapsed())) };
    let ((rabbitmq, broker_took), (mariadb, database_took)) = tokio::try_join!(rabbitmq, mariadb)?;
    eprintln!(
        "with-servers: started RabbitMQ in {:.1} s and MariaDB in {:.1} s",
        broker_took.as_secs_f64(),
        database_took.as_secs_f64()
    );
    Ok((rabbitmq, mariadb))
}

async fn run(command: &mut Command, stop: &mut Stop) -> Result<ExitCode> {
    let name = command.get_program().to_owned();
    let child = Group::spawn(command, None).with_context(|| format!("cannot start {}", name.display()))?;
    let signal = tokio::select! {
        status = child.ended() => return code(status),
        signal = stop.asked() => signal,
    };
    child.signal(signal);
    let again = tokio::select! {
        _ = child.ended() => return Ok(code_of_signal(signal)),
        again = stop.asked() => again,
        () = tokio::time::sleep(GRACE) => signal,
    };
    eprintln!("with-servers: killing the command");
    Ok(code_of_signal(again))
}

fn code(status: Option<ExitStatus>) -> Result<ExitCode> {
    let status = status.context("the command's status was lost")?;
    Ok(match (status.code(), status.signal()) {
        (Some(code), _) => ExitCode::from(u8::try_from(code)?),
        (None, Some(signal)) => ExitCode::from(128 + u8::try_from(signal)?),
        (None, None) => ExitCode::FAILURE,
    })
}

/// The shells' convention.
fn code_of_signal(signal: Signal) -> ExitCode {
    ExitCode::from(128 + u8::try_from(signal as i32).unwrap_or_default())
}

/// The signals that ask us to stop; caught, so that the servers are stopped too.
struct Stop {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    hangup: tokio::signal::unix::Signal,
}

impl Stop {
    fn new() -> Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn asked(&mut self) -> Signal {
        tokio::select! {
            _ = self.interrupt.recv() => Signal::SIGINT,
            _ = self.terminate.recv() => Signal::SIGTERM,
            _ = self.hangup.recv() => Signal::SIGHUP,
        }
    }
}
