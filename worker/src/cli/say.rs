//! Printing what a command has to say.
//!
//! What must stay true: what producers wrote never commands a terminal, and a line that could not be kept does not end well.

use std::borrow::Cow;
use std::fmt::Display;
use std::io::{self, ErrorKind, Write};
use std::sync::Mutex;

/// Why standard output could not take a line.
static UNSAID: Mutex<Option<io::Error>> = Mutex::new(None);

/// Writes a line to standard output. That its reader has gone, as in `retouch … | head`, is no failure of ours; a full disk is
/// one, see [`unsaid`].
pub(super) fn say(line: impl Display) {
    let mut out = io::stdout().lock();
    let line = line.to_string();
    let said = writeln!(out, "{}", harmless(&line)).and_then(|()| out.flush());
    if let Err(error) = said
        && error.kind() != ErrorKind::BrokenPipe
        && let Ok(mut unsaid) = UNSAID.lock()
    {
        unsaid.get_or_insert(error);
    }
}

/// Writes a line to standard error, for people: what is worth knowing beside a command's output.
pub(super) fn complain(line: impl Display) {
    let line = line.to_string();
    // There is nowhere else to say it.
    let _said = writeln!(io::stderr().lock(), "{}", harmless(&line));
}

/// The first thing that kept something from being said.
pub(super) fn unsaid() -> Option<io::Error> {
    UNSAID.lock().ok()?.take()
}

/// Without the characters that move cursors and clear screens.
fn harmless(line: &str) -> Cow<'_, str> {
    let commands = |c: char| c.is_control() && !matches!(c, '\n' | '\t');
    if line.contains(commands) { line.replace(commands, "\u{fffd}").into() } else { line.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_producer_wrote_does_not_command_the_terminal() {
        assert_eq!(harmless("a\u{1b}[2Jb\r\u{9b}c"), "a\u{fffd}[2Jb\u{fffd}\u{fffd}c");
        assert_eq!(harmless("two\n\tlines é 猫"), "two\n\tlines é 猫");
    }
}
