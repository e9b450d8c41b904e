//! What to measure, and how long.

use std::path::PathBuf;

/// A part of the report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// All-hit tasks: Retouch, plain workers, the floor.
    Hits,
    /// What Retouch adds to a paid call.
    Overhead,
    /// Hits while a thousand misses are queued.
    Latency,
    /// Ways to lay the cache out in tables.
    Designs,
    /// The same statements over ever more rows; more workers; more images a task.
    Growth,
    /// Of a worker with a thousand edits in flight, and of an idle one.
    Memory,
}

impl Part {
    /// All of them, in the order in which they run.
    pub const ALL: [Self; 6] =
        [Self::Hits, Self::Overhead, Self::Latency, Self::Memory, Self::Growth, Self::Designs];

    /// Its name on the command line and in the report.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hits => "hits",
            Self::Overhead => "overhead",
            Self::Latency => "latency",
            Self::Designs => "designs",
            Self::Growth => "growth",
            Self::Memory => "memory",
        }
    }
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// What to measure.
    pub parts: Vec<Part>,
    /// How often each contender has its turn.
    pub rounds: usize,
    /// Where the report goes besides the terminal.
    pub json: Option<PathBuf>,
    /// The largest number of cached images that tables are filled with.
    pub most_rows: u64,
    /// Everything as short as it can be, without the contenders in Python: shows that it works, measures nothing.
    pub quick: bool,
}

impl Plan {
    /// How to ask for it.
    pub const USAGE: &str = "usage: tests/bench [all|hits|overhead|latency|designs|growth|memory]… [--rounds N] \
                             [--rows N] [--json FILE] [--quick]";

    /// From the words of a command line; `None` where they make no sense.
    #[must_use]
    pub fn read(words: impl Iterator<Item = String>) -> Option<Self> {
        let mut plan = Self { parts: Vec::new(), rounds: 5, json: None, most_rows: 10_000_000, quick: false };
        let (mut rounds, mut rows) = (None, None);
        let mut words = words;
        while let Some(word) = words.next() {
            match word.as_str() {
                "all" => plan.parts.extend(Part::ALL),
                "--rounds" => rounds = Some(words.next()?.parse().ok().filter(|rounds| *rounds > 0)?),
                "--rows" => rows = Some(words.next()?.parse().ok().filter(|rows| *rows >= 1000)?),
                "--json" => plan.json = Some(words.next()?.into()),
                "--quick" => plan.quick = true,
                name => plan.parts.push(Part::ALL.into_iter().find(|part| part.name() == name)?),
            }
        }
        if plan.quick {
            (plan.rounds, plan.most_rows) = (1, 2000);
        }
        plan.rounds = rounds.unwrap_or(plan.rounds);
        plan.most_rows = rows.unwrap_or(plan.most_rows);
        let wanted = |part: &Part| plan.parts.is_empty() || plan.parts.contains(part);
        plan.parts = Part::ALL.into_iter().filter(wanted).collect();
        Some(plan)
    }

    /// `long`, or `short` where it is only to be shown that it works.
    #[must_use]
    pub const fn pick<T: Copy>(&self, long: T, short: T) -> T {
        if self.quick { short } else { long }
    }

    /// Tasks of a turn for a contender that does so many a second: some seconds, `least` at least.
    #[must_use]
    pub fn tasks(&self, rate: f64, least: u64) -> u64 {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rate is above zero")]
        let count = (rate * self.pick(4.0, 0.1)) as u64;
        count.clamp(least, 40_000)
    }

    /// Numbers of cached images to fill tables with.
    #[must_use]
    pub fn sizes(&self) -> Vec<u64> {
        let sizes = if self.quick { vec![1000, 2000] } else { vec![10_000, 1_000_000, 10_000_000] };
        sizes.into_iter().filter(|size| *size <= self.most_rows).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(words: &str) -> Option<Plan> {
        Plan::read(words.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn no_part_named_means_all_and_nonsense_is_refused() {
        assert_eq!(read("").unwrap().parts, Part::ALL);
        assert_eq!(read("growth hits --rounds 3").unwrap().parts, [Part::Hits, Part::Growth]);
        assert_eq!(read("all --quick").unwrap().rounds, 1);
        assert_eq!(read("--rows 1000000").unwrap().sizes(), [10_000, 1_000_000]);
        for wrong in ["speed", "--rounds", "--rounds 0", "--rounds x", "--json"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }
}
