//! Printing what a command has to say.
//!
//! What must stay true: what comes from outside (producers, providers, servers, file names) never commands a
//! terminal, on standard output, on standard error and in the log; and a line that could not be kept does not
//! end well.

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

/// Writes a line to standard error: there is nowhere to tell that it could not be written.
pub(super) fn complain(line: impl Display) {
    let line = line.to_string();
    let _unheard = writeln!(io::stderr().lock(), "{}", harmless(&line));
}

/// The first thing that kept something from being said.
pub(super) fn unsaid() -> Option<io::Error> {
    UNSAID.lock().ok()?.take()
}

/// Without the characters that move cursors, clear screens, or show text in another order than it has. In
/// JSON they are escaped, which loses nothing: there they can only be within a text.
pub(super) fn harmless(line: &str) -> Cow<'_, str> {
    if !line.contains(is_command) {
        return line.into();
    }
    if !line.starts_with(['{', '[']) {
        return line.replace(is_command, "\u{fffd}").into();
    }
    let mut escaped = String::with_capacity(line.len() + 64);
    for c in line.chars() {
        if is_command(c) {
            escaped.push_str(&format!("\\u{:04x}", u32::from(c)));
        } else {
            escaped.push(c);
        }
    }
    escaped.into()
}

fn is_command(c: char) -> bool {
    let bidirectional = matches!(c,
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    bidirectional || (c.is_control() && !matches!(c, '\n' | '\t'))
}

/// Standard error for the log: filtered like every other line, but for the colours that the log has itself.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct HarmlessStderr;

impl Write for HarmlessStderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // The log writes a line at a time.
        io::stderr().write_all(without_commands(&String::from_utf8_lossy(bytes)).as_bytes())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// A line of the log, whose own escapes only set colours: the values in it have theirs spelt out already.
fn without_commands(line: &str) -> String {
    let mut parts = line.split('\u{1b}');
    let mut harmless_line = harmless(parts.next().unwrap_or_default()).into_owned();
    for part in parts {
        let end = part.find(|c: char| !matches!(c, '[' | ';' | '0'..='9'));
        let colour = end.filter(|end| part.starts_with('[') && part[*end..].starts_with('m'));
        harmless_line.push(if colour.is_some() { '\u{1b}' } else { '\u{fffd}' });
        harmless_line.push_str(&harmless(part));
    }
    harmless_line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_from_outside_does_not_command_the_terminal() {
        assert_eq!(harmless("a\u{1b}[2Jb\r\u{9b}c"), "a\u{fffd}[2Jb\u{fffd}\u{fffd}c");
        assert_eq!(harmless("two\n\tlines é 猫"), "two\n\tlines é 猫");
        assert_eq!(harmless("gpj.\u{202e}exe \u{2066}\u{200f}"), "gpj.\u{fffd}exe \u{fffd}\u{fffd}");
        assert_eq!(harmless("👩\u{200d}🚀"), "👩\u{200d}🚀");
    }

    #[test]
    fn json_keeps_every_character_as_an_escape() {
        let text = "\u{202e}right\u{9b}2J";
        let shown = harmless(&serde_json::json!({"prompt": text}).to_string()).into_owned();
        assert_eq!(shown, r#"{"prompt":"\u202eright\u009b2J"}"#);
        assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).unwrap()["prompt"], text);
    }

    #[test]
    fn a_line_of_the_log_keeps_its_colours_and_no_other_command() {
        let line = "\u{1b}[2mnow\u{1b}[0m \u{1b}[2Jx\u{1b}]0;title\u{7} \u{202e}\r";
        assert_eq!(
            without_commands(line),
            "\u{1b}[2mnow\u{1b}[0m \u{fffd}[2Jx\u{fffd}]0;title\u{fffd} \u{fffd}\u{fffd}"
        );
    }
}
