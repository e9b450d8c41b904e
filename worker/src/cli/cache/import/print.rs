//! What an import says before and after.

use std::time::Duration;

use serde_json::json;

use super::super::super::say::say;
use crate::import::{Links, Manner, PromptExample, Report, TodaysRoute};
use crate::store::DatabaseLocation;
use crate::store::older::Layout;
use crate::words::counted;

/// What is read, and as what.
pub(super) fn preview(layout: &Layout, location: &DatabaseLocation, manner: Manner, price: Option<&str>) {
    say(format!("{} in {location}, read as {}", layout.table, layout.shape));
    for (role, column) in layout.described() {
        say(format!("  {role:<18} {column}"));
    }
    if !layout.ignored.is_empty() {
        say(format!("  {:<18} {}", "not looked at", layout.ignored.join(", ")));
    }
    if !layout.others.is_empty() {
        let others = layout.others.join(", ");
        say(format!("  there is also {others}: take it in by itself with --table"));
    }
    say(match price {
        None => "what a hit saves is the price of its route: --price says what the older system had paid"
            .to_owned(),
        Some(price) => format!("what a hit saves is {price}"),
    });
    say(match manner.links {
        Links::Trust => "links are taken on trust: --check tests them, --fetch copies their pictures",
        Links::Copy => "pictures are copied into our blobs",
        Links::Check => "links are tested, and nothing is taken in",
    });
}

pub(super) fn as_json(report: &Report, layout: &Layout, manner: Manner, took: Duration) {
    let columns: serde_json::Map<_, _> =
        layout.described().into_iter().map(|(role, column)| (role, json!(column))).collect();
    let links = match manner.links {
        Links::Trust => "trusted",
        Links::Copy => "copied",
        Links::Check => "checked",
    };
    let mut shown = serde_json::to_value(report).unwrap_or_default();
    if let Some(members) = shown.as_object_mut() {
        members.insert("table".to_owned(), json!(layout.table));
        members.insert("shape".to_owned(), json!(layout.shape.as_str()));
        members.insert("columns".to_owned(), json!(columns));
        members.insert("ignored".to_owned(), json!(layout.ignored));
        members.insert("links".to_owned(), json!(links));
        members.insert("dry_run".to_owned(), json!(manner.dry_run));
        members.insert("milliseconds".to_owned(), json!(u64::try_from(took.as_millis()).unwrap_or(u64::MAX)));
    }
    // Plain data always serialises.
    say(serde_json::to_string_pretty(&shown).unwrap_or_default());
}

pub(super) fn as_text(report: &Report, manner: Manner, took: Duration) {
    let seconds = took.as_secs_f64();
    let (rows, results) = (counted(report.rows, "row"), counted(report.images, "result"));
    say(format!("{rows} with {results} in {seconds:.1} s"));
    let would = if manner.dry_run { "would be " } else { "" };
    if manner.links == Links::Check {
        say(format!("  {:>8} links lead somewhere", report.alive));
    } else {
        changes(report, would);
    }
    taken_for(report);
    for (reason, skipped) in &report.skipped {
        say(format!("  {:>8} skipped: {reason}", skipped.count));
        for example in &skipped.examples {
            say(format!("{:17}{example}", ""));
        }
    }
    merged(report);
    if manner.dry_run {
        say("nothing was changed: the same command with --yes does it");
    }
    if report.skipped_for(&["unreachable"]) > 0 {
        say("some links could not be reached now: run the same command again");
    }
}

/// What each older edit type is taken for, as a person has to know before it is done.
fn taken_for(report: &Report) {
    for (older, taken) in &report.edit_types {
        let older = if older.is_empty() { "(no edit type)" } else { older };
        match &taken.route {
            Some(TodaysRoute { edit_type, editor, model, params }) => {
                // Plain data always serialises.
                let params = serde_json::to_string(params).unwrap_or_default();
                say(format!(
                    "  {older} → {edit_type}: {editor}, model {model}, parameters {params}: {}",
                    counted(taken.results, "result")
                ));
            }
            None => say(format!("  {older} → nothing")),
        }
        for PromptExample { given, keyed } in &taken.examples {
            if given == keyed {
                say(format!("      prompt {keyed:?}"));
            } else {
                say(format!("      prompt {given:?} is keyed as {keyed:?}"));
            }
        }
        for (reason, refused) in &taken.refused {
            let example = refused.examples.first().map_or("", String::as_str);
            say(format!("      {} refused: {reason}, e.g. {example}", refused.count));
        }
    }
}

fn changes(report: &Report, would: &str) {
    let lines = [
        (report.new, "new"),
        (report.upgraded, "upgraded: the picture behind the link is in our blobs"),
        (report.relinked, "linked anew: the older system has another link"),
        (report.counted, "counted on: the older system has served them more often"),
    ];
    say(format!("  {:>8} {would}{}", lines[0].0, lines[0].1));
    for (count, what) in lines[1..].iter().filter(|(count, _)| *count > 0) {
        say(format!("  {count:>8} {would}{what}"));
    }
    let unchanged = [
        (report.same, "there already"),
        (report.made_here, "made here, which is better: left as they are"),
        (report.removed, "taken out: nothing but a link, which is dead"),
    ];
    for (count, what) in unchanged.into_iter().filter(|(count, _)| *count > 0) {
        say(format!("  {count:>8} {what}"));
    }
    say(format!("  {:>8} hits of the older system {would}added", report.hits_added));
    if report.copied_bytes > 0 {
        say(format!("  {:>8} bytes copied", report.copied_bytes));
    }
}

fn merged(report: &Report) {
    let Some(merged) = &report.merged_prompts else { return };
    if merged.groups == 0 {
        return;
    }
    let part = merged
        .characters
        .map_or_else(String::new, |most| format!(", of which it compared {most} characters"));
    say(format!(
        "{} prompts of {} were {} to the older system (collation {}{part}); here each is an edit of its own:",
        merged.prompts, merged.table, merged.groups, merged.collation
    ));
    for (edit_type, one, other, count) in &merged.examples {
        let more = if *count > 2 { format!(" and {} more", count - 2) } else { String::new() };
        say(format!("  {edit_type}: {one:?}, {other:?}{more}"));
    }
    let told = merged.examples.len();
    if merged.groups > told {
        say(format!("  … and {} more", counted((merged.groups - told) as u64, "group")));
    }
}
