//! A worker that is watched: started with an HTTP port, scraped, and its files for Prometheus and Grafana read.

use std::path::Path;

use crate::exposition::Scrape;
use crate::paid::Paid;
use crate::program::Running;
use crate::promql::{self, Named};
use crate::services::Port;

/// A working worker and where it serves.
#[derive(Debug)]
pub struct Watched {
    /// The worker.
    pub worker: Running,
    root: String,
    _port: Port,
}

impl Watched {
    /// One worker of this installation, with further settings in its file and environment.
    pub async fn start(paid: &Paid, toml: &str, variables: &[(&str, &str)]) -> Self {
        let port = Port::free().unwrap();
        let address = format!("127.0.0.1:{}", port.number());
        let mut all = vec![("RETOUCH_HTTP", address.as_str())];
        all.extend(variables);
        let worker = paid.worker_with(toml, &all).await;
        Self { worker, root: format!("http://{address}"), _port: port }
    }

    /// Where it serves, without a slash at the end.
    #[must_use]
    pub fn root(&self) -> &str {
        &self.root
    }

    /// Status and body of one path.
    pub async fn get(&self, path: &str) -> (u16, String) {
        let answer = reqwest::get(format!("{}{path}", self.root)).await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    }

    /// Its metrics now; panics if their format is invalid.
    pub async fn scrape(&self) -> Scrape {
        let (status, text) = self.get("/metrics").await;
        assert_eq!(status, 200, "{text}");
        Scrape::read(&text).unwrap_or_else(|error| panic!("{error:#}\n{text}"))
    }
}

/// One alert rule, as its file has it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rule {
    /// Its name.
    pub alert: String,
    /// When it fires.
    pub expr: String,
    /// How urgent.
    pub severity: String,
    /// For whom it wakes.
    pub summary: String,
    /// Where it says what to do.
    pub runbook: String,
}

/// A file of this repository.
#[must_use]
pub fn file(path: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    std::fs::read_to_string(root.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The alert rules: a value a line, which is all of YAML that the file uses.
#[must_use]
pub fn rules() -> Vec<Rule> {
    let mut rules: Vec<Rule> = Vec::new();
    for line in file("deploy/prometheus/alerts.yml").lines() {
        let line = line.trim_start().trim_start_matches("- ");
        let Some((key, value)) = line.split_once(':').filter(|_| !line.starts_with('#')) else { continue };
        let value = value.trim().to_owned();
        if key == "alert" {
            rules.push(Rule { alert: value, ..Rule::default() });
            continue;
        }
        let Some(rule) = rules.last_mut() else { continue };
        match key {
            "expr" => rule.expr = value,
            "severity" => rule.severity = value,
            "summary" => rule.summary = value,
            "runbook" => rule.runbook = value,
            "for" | "labels" | "annotations" => {}
            other => panic!("what is {other:?} in a rule?"),
        }
    }
    rules
}

/// Every expression of the dashboard, with the title of its panel.
#[must_use]
pub fn panels() -> Vec<(String, String)> {
    let dashboard: serde_json::Value = serde_json::from_str(&file("deploy/grafana/retouch.json")).unwrap();
    let mut found = Vec::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
            found.push((text(&panel["title"]), text(&target["expr"])));
        }
    }
    found
}

/// What of an expression is not in the scrape: a metric, a label of it, or a value that a condition asks for.
#[must_use]
pub fn strangers(expression: &str, scrape: &Scrape) -> Vec<String> {
    let Named { selectors, grouped } = promql::read(expression).unwrap_or_else(|error| panic!("{error:#}"));
    let mut strangers = Vec::new();
    // Prometheus adds these two itself.
    let mut labels = vec!["job".to_owned(), "instance".to_owned()];
    for (name, matchers) in &selectors {
        let base = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix));
        let histogram =
            |base: &&str| scrape.families.get(*base).is_some_and(|family| family.kind == "histogram");
        let family = base.filter(histogram).unwrap_or(name);
        let Some(family) = scrape.families.get(family) else {
            strangers.push(name.clone());
            continue;
        };
        let samples: Vec<_> = family.samples.iter().filter(|(sample, ..)| sample == name).collect();
        if samples.is_empty() {
            strangers.push(format!("{name} as a {}", family.kind));
        }
        labels.extend(samples.iter().flat_map(|(_, given, _)| given.keys().cloned()));
        for matcher in matchers {
            let values: Vec<_> =
                samples.iter().filter_map(|(_, given, _)| given.get(&matcher.label)).collect();
            let wanted = matcher.operator != "=" || values.iter().any(|value| **value == matcher.value);
            if values.is_empty() || !wanted {
                strangers.push(format!("{name}{{{}{}{:?}}}", matcher.label, matcher.operator, matcher.value));
            }
        }
    }
    strangers.extend(
        grouped.into_iter().filter(|label| !labels.contains(label)).map(|label| format!("by {label}")),
    );
    strangers
}
