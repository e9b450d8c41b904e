//! The readers used by other tests refuse malformed input; and the documentation lists exactly the declared
//! metrics.

use std::collections::BTreeSet;

use retouch_tests::exposition::Scrape;
use retouch_tests::promql;
use retouch_tests::watched::{file, panels, rules};
use retouch_worker::metrics::DECLARED;

const GOOD: &str = "# HELP a_total What.\n# TYPE a_total counter\na_total{x=\"1\",y=\"a\\\"b\"} 3\na_total{x=\"2\",y=\"\"} 0\n\n\
    # HELP b_seconds What.\n# TYPE b_seconds histogram\nb_seconds_bucket{le=\"0.1\"} 1\nb_seconds_bucket{le=\"+Inf\"} 2\n\
    b_seconds_sum 0.5\nb_seconds_count 2\n";

#[test]
fn the_reader_of_metrics_refuses_every_malformed_exposition() {
    let read = Scrape::read(GOOD).unwrap();
    assert_eq!(read.sum("a_total", &[("x", "1")]), 3.0);
    for (right, wrong) in [
        ("# HELP a_total What.\n", ""),
        ("# TYPE a_total counter\n", ""),
        ("# TYPE a_total counter\n", "# TYPE a_total counter\n# TYPE a_total counter\n"),
        ("# HELP b_seconds", "# HELP a_total"),
        ("counter", "gauge"),
        ("counter", "summary"),
        ("x=\"2\",y=\"\"", "x=\"1\",y=\"a\\\"b\""),
        ("x=\"2\",y=\"\"", "x=\"2\" y=\"\""),
        ("y=\"a\\\"b\"", "y=\"a\"b\""),
        ("} 3", "} three"),
        ("} 3", "} -3"),
        ("} 3", "}3"),
        ("b_seconds_bucket{le=\"0.1\"} 1", "b_seconds_bucket{le=\"0.1\"} 7"),
        ("le=\"+Inf\"", "le=\"2\""),
        ("le=\"0.1\"", "le=\"+Inf\""),
        ("b_seconds_count 2", "b_seconds_count 3"),
        ("b_seconds_sum 0.5\n", ""),
        ("b_seconds_count 2\n", "b_seconds_count 2"),
    ] {
        assert!(GOOD.contains(right), "{right}");
        let text = GOOD.replacen(right, wrong, 1);
        assert!(Scrape::read(&text).is_err(), "{right:?} -> {wrong:?} was taken");
    }
}

#[test]
fn the_reader_of_expressions_finds_names_and_refuses_unknown_syntax() {
    let read = promql::read(
        "sum by (le, lane) (rate(a_bucket{lane=\"x\",q=~\"y|z\"}[$__range])) / 3 > 1 or on (k) max(b offset 5m)",
    )
    .unwrap();
    let names: Vec<_> =
        read.selectors.iter().map(|(name, matchers)| (name.as_str(), matchers.len())).collect();
    assert_eq!(names, [("a_bucket", 2), ("b", 0)]);
    assert_eq!(read.grouped, ["le", "lane", "k"]);
    for wrong in
        ["", "sum(a", "rate(a[5m)", "unknown(a)", "a{x}", "a{x==\"1\"}", "sum by lane (a)", "a & b", "3"]
    {
        assert!(promql::read(wrong).is_err(), "{wrong:?} was taken");
    }
}

/// `| name | type | labels | meaning |`
#[test]
fn the_documentation_lists_every_metric_as_it_is_declared_and_no_other() {
    let documented: BTreeSet<Vec<String>> = file("docs/operations/metrics.md")
        .lines()
        .filter(|line| line.starts_with("| `retouch_") || line.starts_with("| `process_"))
        .map(|line| {
            line.trim_matches('|').split(" | ").map(|cell| cell.trim().trim_matches('`').to_owned()).collect()
        })
        .collect();
    let declared: BTreeSet<Vec<String>> = DECLARED
        .iter()
        .map(|metric| {
            let labels = metric.labels.join(", ");
            vec![metric.name.to_owned(), metric.kind.as_str().to_owned(), labels, metric.help.to_owned()]
        })
        .collect();
    let missing: Vec<_> = declared
        .difference(&documented)
        .map(|row| format!("| `{}` | {} | {} | {} |", row[0], row[1], row[2], row[3]))
        .collect();
    assert!(missing.is_empty(), "not in docs/operations/metrics.md:\n{}", missing.join("\n"));
    let more: Vec<_> = documented.difference(&declared).collect();
    assert!(more.is_empty(), "in docs/operations/metrics.md, and nowhere else: {more:?}");
}

#[test]
fn six_alerts_exist_and_each_has_a_runbook() {
    let rules = rules();
    assert_eq!(rules.len(), 6);
    let docs = file("docs/operations/metrics.md");
    for rule in rules {
        let anchor = rule.runbook.strip_prefix("docs/operations/metrics.md#");
        assert_eq!(anchor, Some(rule.alert.to_lowercase().as_str()), "{rule:?}");
        assert!(docs.contains(&format!("### {}\n", rule.alert)), "no section for {}", rule.alert);
        assert!(rule.severity == "page" && !rule.summary.is_empty() && !rule.expr.is_empty(), "{rule:?}");
    }
}

#[test]
fn the_dashboard_has_panels_for_work_money_time_and_trouble() {
    let panels = panels();
    assert!(panels.len() > 30, "{}", panels.len());
    for (title, expression) in panels {
        promql::read(&expression).unwrap_or_else(|error| panic!("{title}: {error:#}"));
    }
}
