//! A strict reader of Prometheus' text format 0.0.4: stricter than a real one, so that whatever passes here
//! passes there.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};

/// Labels and their values.
pub type Labels = BTreeMap<String, String>;

/// One metric.
#[derive(Debug, Clone, Default)]
pub struct Family {
    /// `counter`, `gauge` or `histogram`.
    pub kind: String,
    /// Its help text.
    pub help: String,
    /// By their own name (a histogram's have a suffix), labels, value; in order.
    pub samples: Vec<(String, Labels, f64)>,
}

/// What one scrape answered, by metric name.
#[derive(Debug, Clone, Default)]
pub struct Scrape {
    /// The metrics.
    pub families: BTreeMap<String, Family>,
}

impl Scrape {
    /// Reads a whole answer.
    ///
    /// # Errors
    /// The first line that is wrong, and why.
    pub fn read(text: &str) -> Result<Self> {
        ensure!(text.ends_with('\n'), "the last line has no end");
        let mut scrape = Self::default();
        let mut current = String::new();
        for (number, line) in text.lines().enumerate() {
            scrape.line(line, &mut current).with_context(|| format!("line {}: {line}", number + 1))?;
        }
        for (name, family) in &scrape.families {
            family.check(name).with_context(|| name.clone())?;
        }
        Ok(scrape)
    }

    fn line(&mut self, line: &str, current: &mut String) -> Result<()> {
        if line.is_empty() {
            return Ok(());
        }
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').context("no help text")?;
            let new = Family { help: help.to_owned(), ..Family::default() };
            ensure!(self.families.insert(name.to_owned(), new).is_none(), "a second HELP of {name}");
            name.clone_into(current);
            return Ok(());
        }
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').context("no type")?;
            ensure!(name == current, "TYPE of {name} does not follow its HELP");
            ensure!(["counter", "gauge", "histogram"].contains(&kind), "no type: {kind}");
            let family = self.families.get_mut(name).context("no HELP before")?;
            ensure!(family.kind.is_empty() && family.samples.is_empty(), "a second or late TYPE");
            kind.clone_into(&mut family.kind);
            return Ok(());
        }
        ensure!(!line.starts_with('#'), "a comment of no known kind");
        let (name, labels, value) = sample(line)?;
        let family = self.families.get_mut(current.as_str()).context("a sample before its HELP")?;
        ensure!(!family.kind.is_empty(), "a sample before its TYPE");
        let suffix = name.strip_prefix(current.as_str()).context("a sample among another metric's")?;
        let allowed: &[&str] =
            if family.kind == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
        ensure!(allowed.contains(&suffix), "a {} has no {suffix:?}", family.kind);
        let twice = family.samples.iter().any(|(other, given, _)| *other == name && *given == labels);
        ensure!(!twice, "a second sample with these labels");
        family.samples.push((name, labels, value));
        Ok(())
    }

    /// The sum of a metric's samples that have these labels.
    #[must_use]
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let fits = |given: &Labels| {
            labels.iter().all(|(label, value)| given.get(*label).is_some_and(|given| given == value))
        };
        let samples = self.families.get(name).map(|family| family.samples.as_slice()).unwrap_or_default();
        samples.iter().filter(|(_, given, _)| fits(given)).map(|(_, _, value)| value).sum()
    }
}

impl Family {
    fn check(&self, name: &str) -> Result<()> {
        ensure!(!self.kind.is_empty(), "no TYPE");
        ensure!(!self.samples.is_empty(), "no samples");
        ensure!((self.kind == "counter") == name.ends_with("_total"), "only counters end in _total");
        for (_, labels, value) in &self.samples {
            ensure!(self.kind == "gauge" || *value >= 0.0, "{labels:?}: below zero");
        }
        if self.kind == "histogram" { self.check_histogram(name) } else { Ok(()) }
    }

    /// Each has its buckets in order, none below the one before, `+Inf` last and equal to the count, and a sum.
    fn check_histogram(&self, name: &str) -> Result<()> {
        let mut series: BTreeMap<Labels, Vec<(f64, f64)>> = BTreeMap::new();
        let mut ends: BTreeMap<(Labels, &str), f64> = BTreeMap::new();
        for (sample, labels, value) in &self.samples {
            let mut labels = labels.clone();
            match sample.strip_prefix(name) {
                Some("_bucket") => {
                    let le = labels.remove("le").context("a bucket without le")?;
                    let le = if le == "+Inf" { f64::INFINITY } else { le.parse()? };
                    series.entry(labels).or_default().push((le, *value));
                }
                Some(suffix) => {
                    ends.insert((labels, suffix), *value);
                }
                None => bail!("{sample}"),
            }
        }
        ensure!(ends.len() == 2 * series.len(), "not each has a sum and a count");
        for (labels, buckets) in series {
            let rising = buckets.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1);
            ensure!(rising, "{labels:?}: the buckets do not rise: {buckets:?}");
            let last = buckets.last().filter(|(le, _)| le.is_infinite()).context("no le=\"+Inf\"")?;
            let count = ends.get(&(labels.clone(), "_count"));
            ensure!(count == Some(&last.1), "{labels:?}: the count is not that of +Inf");
            ensure!(ends.contains_key(&(labels.clone(), "_sum")), "{labels:?}: no sum");
        }
        Ok(())
    }
}

fn sample(line: &str) -> Result<(String, Labels, f64)> {
    let end = line.find(['{', ' ']).context("no value")?;
    let (name, mut rest) = line.split_at(end);
    ensure!(is_name(name), "not a name: {name}");
    let mut labels = Labels::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        while !rest.starts_with('}') {
            let (label, after) = rest.split_once("=\"").context("a label without a value")?;
            ensure!(is_name(label) && !label.contains(':'), "not a label: {label}");
            let (value, after) = quoted(after)?;
            ensure!(labels.insert(label.to_owned(), value).is_none(), "{label} twice");
            rest = match after.strip_prefix(',') {
                Some(after) => after,
                None => after,
            };
            ensure!(rest.starts_with('}') || after.starts_with(','), "no comma between labels");
        }
        rest = &rest[1..];
    }
    let value = rest.strip_prefix(' ').context("no space before the value")?;
    ensure!(!value.contains(' '), "something after the value");
    Ok((name.to_owned(), labels, value.parse().context("not a number")?))
}

/// The text up to the closing quote, and the rest.
fn quoted(text: &str) -> Result<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, char)) = chars.next() {
        match char {
            '"' => return Ok((value, &text[at + 1..])),
            '\\' => match chars.next() {
                Some((_, 'n')) => value.push('\n'),
                Some((_, char @ ('\\' | '"'))) => value.push(char),
                other => bail!("no escape: {other:?}"),
            },
            char => value.push(char),
        }
    }
    bail!("a value without an end")
}

fn is_name(text: &str) -> bool {
    let mut chars = text.chars();
    chars.next().is_some_and(|char| char.is_ascii_alphabetic() || char == '_' || char == ':')
        && chars.all(|char| char.is_ascii_alphanumeric() || char == '_' || char == ':')
}
