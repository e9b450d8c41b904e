//! The exposition format for figures outside the recorder: those read on request, and money.

use std::fmt::{Display, Write};

use super::names::Declared;

/// One metric as text. A family without samples is not written.
pub(crate) struct Family {
    declared: Declared,
    samples: String,
}

impl Family {
    pub(crate) fn new(declared: Declared) -> Self {
        Self { declared, samples: String::new() }
    }

    /// One sample; `labels` are the values of the declared labels, in their order.
    pub(crate) fn sample<const N: usize>(&mut self, labels: [&str; N], value: impl Display) {
        let names = self.declared.labels;
        debug_assert_eq!(names.len(), N, "{}", self.declared.name);
        let pairs: Vec<_> =
            names.iter().zip(labels).map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
        let labels = if pairs.is_empty() { String::new() } else { format!("{{{}}}", pairs.join(",")) };
        // Writing into a string does not fail.
        let _ = writeln!(self.samples, "{}{labels} {value}", self.declared.name);
    }

    pub(crate) fn write_to(self, text: &mut String) {
        if self.samples.is_empty() {
            return;
        }
        let Declared { name, kind, help, .. } = self.declared;
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {}\n{}", kind.as_str(), self.samples);
    }
}

/// Millionths as a decimal number.
pub(crate) fn units(micros: i64) -> String {
    retouch_shared::event::decimal(micros)
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::super::names::{DEAD_LETTERS, EVENTS_DUE};
    use super::*;

    #[test]
    fn every_label_value_is_escaped() {
        let mut family = Family::new(DEAD_LETTERS);
        family.sample(["a\"b\\c\nd"], 3);
        let mut text = String::new();
        family.write_to(&mut text);
        assert_eq!(text.lines().nth(2), Some(r#"retouch_dead_letters{reason="a\"b\\c\nd"} 3"#));
    }

    #[test]
    fn metrics_without_labels_or_samples_are_written_correctly() {
        let mut text = String::new();
        Family::new(DEAD_LETTERS).write_to(&mut text);
        let mut due = Family::new(EVENTS_DUE);
        due.sample([], units(140_000));
        due.write_to(&mut text);
        assert_eq!(text.lines().nth(2), Some("retouch_events_due 0.14"));
    }
}
