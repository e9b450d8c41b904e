//! Child processes that cannot outlive the process that started them, however it ends.
//!
//! Every child runs in a process group of its own, together with a *guardian*: a shell that blocks on a pipe
//! whose other end only we hold. When we die (even by SIGKILL, even when the test runner gives up on us) the
//! pipe closes and the guardian kills its group. The guardian leads the group, so the group's id cannot be
//! reused while we may still want to kill it.

use std::{
    ffi::OsStr,
    io,
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, ExitStatus, Stdio},
    thread::JoinHandle,
};

use nix::{
    sys::signal::{self, Signal},
    unistd::Pid,
};
use tokio::sync::watch;

/// Reads until the pipe closes, then kills its own group and removes what the dead owner no longer can. The
/// removal is left to a process outside of the group, because nothing may write any more when it begins; the
/// last system call of a killed process can still come between, hence the second try.
const GUARD: &str = r#"
    read -r _
    exec setsid --fork sh -c '
        kill -9 "-$1"
        [ -z "$2" ] || rm -rf -- "$2" || { sleep 1; rm -rf -- "$2"; }
    ' remover "$$" "$1"
"#;

/// One child with whatever it starts; all of it is killed on drop.
#[derive(Debug)]
pub struct Group {
    guardian: Child,
    /// Held only so that it closes when we end.
    _lifeline: Option<ChildStdin>,
    pid: Pid,
    exited: watch::Receiver<Option<ExitStatus>>,
    reaper: Option<JoinHandle<()>>,
    /// The child's output, if the command requested a pipe; its reader takes it.
    pub stdout: Option<ChildStdout>,
    /// As `stdout`.
    pub stderr: Option<ChildStderr>,
}

impl Group {
    /// Starts `command`. `folder` is removed by the guardian when this process dies without cleaning up.
    pub fn spawn(command: &mut Command, folder: Option<&Path>) -> io::Result<Self> {
        let mut guardian = Command::new("/bin/sh")
            .args([OsStr::new("-c"), OsStr::new(GUARD), OsStr::new("guardian")])
            .arg(folder.map_or(OsStr::new(""), Path::as_os_str))
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let lifeline = guardian.stdin.take();
        let group = pid(&guardian);
        let child = command.process_group(group.as_raw()).spawn();
        let mut child = match child {
            Ok(child) => child,
            Err(error) => {
                end(&mut guardian, group);
                return Err(error);
            }
        };
        let (tell, exited) = watch::channel(None);
        let (pid, stdout, stderr) = (pid(&child), child.stdout.take(), child.stderr.take());
        let reaper = std::thread::spawn(move || {
            let status = child.wait().ok();
            tell.send_replace(status);
        });
        Ok(Self { guardian, _lifeline: lifeline, pid, exited, reaper: Some(reaper), stdout, stderr })
    }

    /// The process id of the child itself.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid.as_raw()
    }

    /// Signals the child itself, not what it started; nothing happens when it has ended.
    pub fn signal(&self, signal: Signal) {
        if self.status().is_none() {
            // It may end between the look and the signal; until the reaper ran, its id is still its own.
            let _ = signal::kill(self.pid, signal);
        }
    }

    /// How the child ended, or `None` while it runs.
    #[must_use]
    pub fn status(&self) -> Option<ExitStatus> {
        *self.exited.borrow()
    }

    /// Waits for the child to end. `None` when its status could not be learned.
    pub async fn ended(&self) -> Option<ExitStatus> {
        let mut exited = self.exited.clone();
        exited.wait_for(Option::is_some).await.ok().and_then(|status| *status)
    }

    /// Kills the whole group with SIGKILL and returns when the child is gone.
    pub fn kill9(&mut self) {
        let group = pid(&self.guardian);
        end(&mut self.guardian, group);
        if let Some(reaper) = self.reaper.take() {
            let _ = reaper.join();
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if self.reaper.is_some() {
            self.kill9();
        }
    }
}

fn pid(child: &Child) -> Pid {
    Pid::from_raw(child.id().cast_signed())
}

fn end(guardian: &mut Child, group: Pid) {
    // Fails only if the group is already gone, which is the goal.
    let _ = signal::killpg(group, Signal::SIGKILL);
    let _ = guardian.wait();
}
