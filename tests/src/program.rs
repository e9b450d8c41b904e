//! The built program `retouch` as a child process: started with exactly the settings a test names, watched
//! line by line, killed in every way.

use std::{
    ffi::{OsStr, OsString},
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
};

use nix::sys::signal::Signal;
use tempfile::TempDir;
use tokio::sync::watch;

use crate::{process::Group, wait::SOON};

/// The program to be started. It inherits no setting of this machine: only the `PATH` and what is set here.
#[derive(Debug)]
pub struct Program {
    command: Command,
    home: TempDir,
}

impl Program {
    /// `retouch` with these arguments, in an empty home and working folder.
    #[must_use]
    pub fn new(arguments: &[&str]) -> Self {
        Self::other(binary(), arguments)
    }

    /// Another program under the same conditions, e.g. a producer in another language.
    #[must_use]
    pub fn other(program: impl AsRef<OsStr>, arguments: &[&str]) -> Self {
        let home = tempfile::Builder::new().prefix("retouch-home-").tempdir().unwrap();
        let mut command = Command::new(program);
        command.args(arguments).env_clear().env("HOME", home.path()).current_dir(home.path());
        // LLVM_PROFILE_FILE is where a coverage build writes; RUST_BACKTRACE makes a crash readable.
        for name in ["PATH", "TMPDIR", "LLVM_PROFILE_FILE", "RUST_BACKTRACE"] {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        Self { command, home }
    }

    /// Sets a variable, or replaces what [`crate::env::Env::program`] set.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Makes `folder` the home and the working folder.
    #[must_use]
    pub fn within(mut self, folder: &Path) -> Self {
        self.command.env("HOME", folder).current_dir(folder);
        self
    }

    /// Removes a variable.
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        self.command.env_remove(name);
        self
    }

    /// Adds an argument that is no string literal.
    #[must_use]
    pub fn arg(mut self, argument: impl Into<OsString>) -> Self {
        self.command.arg(argument.into());
        self
    }

    /// The working folder, which is also the home: empty, and removed when the process is dropped.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.home.path()
    }

    /// Starts it.
    #[must_use]
    pub fn start(mut self) -> Running {
        self.command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut group =
            Group::spawn(&mut self.command, Some(self.home.path())).expect("cannot start the program");
        let output = Arc::new(Output::default());
        let (stdout, stderr) = (group.stdout.take().unwrap(), group.stderr.take().unwrap());
        Output::read(&output, Stream::Out, stdout);
        Output::read(&output, Stream::Err, stderr);
        Running { group, output, home: self.home }
    }

    /// Runs it to its end, which must come soon.
    pub async fn run(self) -> Finished {
        let running = self.start();
        let status = running.exit().await;
        Finished {
            status,
            stdout: running.output.text(Stream::Out),
            stderr: running.output.text(Stream::Err),
        }
    }
}

/// What a command did.
#[derive(Debug)]
pub struct Finished {
    /// How it ended.
    pub status: ExitStatus,
    /// All it printed.
    pub stdout: String,
    /// All it complained.
    pub stderr: String,
}

/// The running program; it is killed on drop.
#[derive(Debug)]
pub struct Running {
    group: Group,
    output: Arc<Output>,
    home: TempDir,
}

impl Running {
    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.group.pid()
    }

    /// Its working folder, which is also its home.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.home.path()
    }

    /// Waits for a line, of either stream, that contains `part`, and returns it; lines that came before this
    /// call count. Panics with the whole output when it does not come soon or the program ends without it.
    pub async fn line(&self, part: &str) -> String {
        self.line_after(0, part).await
    }

    /// As [`Running::line`], among the lines after a [`Running::mark`].
    pub async fn line_after(&self, mark: usize, part: &str) -> String {
        let mut changed = self.output.changed.subscribe();
        let mut found = None;
        let seen = changed.wait_for(|seen| {
            found = self.output.find(mark, part);
            found.is_some() || seen.ended == 2
        });
        let in_time = tokio::time::timeout(SOON, seen).await.is_ok();
        found.unwrap_or_else(|| {
            let why = if in_time { "the program ended".to_owned() } else { format!("{SOON:?} passed") };
            panic!("{why} without a line that contains {part:?}; the output was:\n{}", self.output.all())
        })
    }

    /// The number of lines up to now, for [`Running::line_after`].
    #[must_use]
    pub fn mark(&self) -> usize {
        self.output.lines.lock().unwrap().len()
    }

    /// The lines of its standard output up to now.
    #[must_use]
    pub fn stdout(&self) -> String {
        self.output.text(Stream::Out)
    }

    /// The lines of its standard error up to now.
    #[must_use]
    pub fn stderr(&self) -> String {
        self.output.text(Stream::Err)
    }

    /// How it ended, or `None` while it runs.
    #[must_use]
    pub fn status(&self) -> Option<ExitStatus> {
        self.group.status()
    }

    /// Waits until it has ended, however long that takes.
    pub async fn ended(&self) {
        self.group.ended().await;
    }

    /// Waits until it has ended and its output is complete; panics when that does not happen soon.
    pub async fn exit(&self) -> ExitStatus {
        let mut changed = self.output.changed.subscribe();
        let end = async {
            let status = self.group.ended().await;
            let _ = changed.wait_for(|seen| seen.ended == 2).await;
            status
        };
        match tokio::time::timeout(SOON, end).await {
            Ok(status) => status.expect("the exit status was lost"),
            Err(_) => panic!("the program still ran after {SOON:?}; the output was:\n{}", self.output.all()),
        }
    }

    /// Asks it to shut down (SIGTERM).
    pub fn terminate(&self) {
        self.group.signal(Signal::SIGTERM);
    }

    /// Sends any other signal, e.g. SIGSTOP for a process that hangs and SIGCONT for one that comes back.
    pub fn signal(&self, signal: Signal) {
        self.group.signal(signal);
    }

    /// Kills it as a crash would end it, and returns when it is gone.
    pub fn kill9(&mut self) {
        self.group.kill9();
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stream {
    Out,
    Err,
}

/// What readers of the output wait for.
#[derive(Debug, Default)]
struct Seen {
    lines: usize,
    /// How many of the two streams are at their end.
    ended: usize,
}

#[derive(Debug, Default)]
struct Output {
    lines: Mutex<Vec<(Stream, String)>>,
    changed: watch::Sender<Seen>,
}

impl Output {
    /// Reads in a thread, so that the program never waits for a test to read, whatever the test's runtime
    /// does.
    fn read(this: &Arc<Self>, stream: Stream, from: impl Read + Send + 'static) {
        let output = Arc::clone(this);
        std::thread::spawn(move || {
            for line in BufReader::new(from).split(b'\n') {
                let Ok(line) = line else { break };
                let line = String::from_utf8_lossy(&line).into_owned();
                output.lines.lock().unwrap().push((stream, line));
                output.changed.send_modify(|seen| seen.lines += 1);
            }
            output.changed.send_modify(|seen| seen.ended += 1);
        });
    }

    fn find(&self, mark: usize, part: &str) -> Option<String> {
        let lines = self.lines.lock().unwrap();
        lines.iter().skip(mark).find(|(_, line)| line.contains(part)).map(|(_, line)| line.clone())
    }

    fn text(&self, wanted: Stream) -> String {
        let lines = self.lines.lock().unwrap();
        lines.iter().filter(|(stream, _)| *stream == wanted).map(|(_, line)| format!("{line}\n")).collect()
    }

    fn all(&self) -> String {
        self.lines.lock().unwrap().iter().map(|(_, line)| format!("{line}\n")).collect()
    }
}

/// The program that was built together with this test, in the folder above the test's own.
#[must_use]
pub fn binary() -> PathBuf {
    beside("retouch")
}

/// Another program of the workspace, as [`binary`].
#[must_use]
pub fn beside(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let built = test.ancestors().skip(1).take(2).map(|folder| folder.join(name)).find(|path| path.is_file());
    built.unwrap_or_else(|| {
        panic!(
            "no program `{name}` beside {}: build it with `cargo build --workspace`, or run `tests/run`, which does",
            test.display()
        )
    })
}
