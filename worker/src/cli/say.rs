//! Printing what a command has to say.

use std::fmt::Display;
use std::io::Write;

/// Writes a line to standard output. That its reader has gone, as in `retouch … | head`, is no failure of ours.
pub(super) fn say(line: impl Display) {
    let mut out = std::io::stdout().lock();
    let _gone = writeln!(out, "{line}").and_then(|()| out.flush());
}
