//! `retouch dead retry` and `retouch dead discard`: first what would happen, then, with `--yes`, that.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use super::super::say::say;
use super::super::{Ending, Failure};
use super::pick::Pick;
use crate::app::{App, open_store};
use crate::config::Settings;
use crate::dead::{Preview, Sent, preview, send};
use crate::store::Store;
use crate::words::counted;

/// Letters that are discarded, or counted, together.
const BATCH: usize = 500;

/// Send letters again: say first what that would cost, then do it with --yes
///
/// Failed images are begun again in their tasks, which end anew with an event of their new outcome; a message that could not be
/// worked on goes back to its queue. Tries begin anew. A result that was paid for and lost is asked for again
/// first, free, and paid again only if the provider no longer has it. May run twice, at once or after a kill:
/// each letter is sent once.
///
/// Example: retouch dead retry --group 4711 --rate 50 --yes
#[derive(Debug, Args)]
pub(super) struct Retry {
    #[command(flatten)]
    pick: Pick,
    /// Do it; without, only say what would be done
    #[arg(long)]
    yes: bool,
    /// Pay again at once, without asking for what was paid for before
    #[arg(long)]
    anew: bool,
    /// At most so many letters a second
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,
}

/// Discard letters that need no more attention: say first which, then do it with --yes
///
/// They stay in the table until RETOUCH_DEAD_RETENTION_DAYS have passed, and can be exported until then.
///
/// Example: retouch dead discard --reason bad_message --since 3d --yes
#[derive(Debug, Args)]
pub(super) struct Discard {
    #[command(flatten)]
    pick: Pick,
    /// Do it; without, only say what would be done
    #[arg(long)]
    yes: bool,
}

impl Retry {
    pub(super) async fn run(self, settings: Settings, json: bool) -> Result<Ending, Failure> {
        let began = Instant::now();
        if !self.yes {
            // Nothing is sent, so nothing of the broker is needed.
            let app = App::open_tables(settings).await.map_err(Failure::Unreachable)?;
            let ids = self.pick.ids(&app.store).await?;
            let preview = preview(&app, &ids, self.anew).await.map_err(Failure::Unreachable)?;
            app.store.close().await;
            print_preview(&preview, json);
            return Ok(Ending::Done);
        }
        let app = App::open(settings).await.map_err(Failure::Unreachable)?;
        let ids = self.pick.ids(&app.store).await?;
        let bar = bar(ids.len(), "sending again");
        let sent = send(&app, &ids, self.anew, self.rate, |letters| bar.inc(letters)).await;
        bar.finish_and_clear();
        app.broker.close().await;
        app.store.close().await;
        let sent = sent.map_err(Failure::Unreachable)?;
        print_sent(&sent, began.elapsed(), json);
        Ok(if sent.cannot == 0 { Ending::Done } else { Ending::SomeFailed })
    }
}

impl Discard {
    pub(super) async fn run(self, settings: &Settings, json: bool) -> Result<Ending, Failure> {
        let store = open_store(settings).await.map_err(Failure::Unreachable)?;
        let ids = self.pick.ids(&store).await?;
        if !self.yes {
            let reasons = reasons(&store, &ids).await?;
            store.close().await;
            print_discardable(ids.len(), &reasons, json);
            return Ok(Ending::Done);
        }
        let bar = bar(ids.len(), "discarding");
        let mut discarded = 0;
        for ids in ids.chunks(BATCH) {
            discarded += store.discard_letters(ids).await.map_err(Failure::unreachable)?;
            bar.inc(ids.len() as u64);
        }
        bar.finish_and_clear();
        store.close().await;
        let skipped = ids.len() as u64 - discarded.min(ids.len() as u64);
        if json {
            say(json!({"discarded": discarded, "skipped": skipped}));
        } else {
            say(format!("discarded {}{}", counted(discarded, "letter"), others(skipped)));
        }
        Ok(Ending::Done)
    }
}

async fn reasons(store: &Store, ids: &[i64]) -> Result<BTreeMap<String, u64>, Failure> {
    let mut reasons = BTreeMap::new();
    for ids in ids.chunks(BATCH) {
        for letter in store.letters(ids).await.map_err(Failure::unreachable)? {
            *reasons.entry(letter.reason).or_default() += 1;
        }
    }
    Ok(reasons)
}

fn print_discardable(count: usize, reasons: &BTreeMap<String, u64>, json: bool) {
    if json {
        say(json!({"preview": true, "letters": count, "reasons": reasons}));
        return;
    }
    say(format!("{} would be discarded", counted(count as u64, "letter")));
    for (reason, count) in reasons {
        say(format!("  {count} {reason}"));
    }
    say("nothing was changed: the same command with --yes does it");
}

fn print_preview(preview: &Preview, json: bool) {
    if json {
        let mut shown = serde_json::to_value(preview).unwrap_or_default();
        if let Some(members) = shown.as_object_mut() {
            members.insert("preview".to_owned(), json!(true));
        }
        // Plain data always serialises.
        say(serde_json::to_string_pretty(&shown).unwrap_or_default());
        return;
    }
    for line in in_words(preview) {
        say(line);
    }
}

/// What a retry would come to, a line each.
fn in_words(preview: &Preview) -> Vec<String> {
    let (letters, images) = (counted(preview.letters, "letter"), counted(preview.images, "image"));
    let mut lines = vec![format!("{letters} would be sent again, for {images}:")];
    let free = [
        (preview.free_hits, "image", "in the cache by now, free"),
        (preview.free_local, "image", "edited here, free"),
        (preview.free_shared, "image", "answered by a call of another image, at no further cost"),
        (preview.unknown, "image", "to be loaded before it is known whether it is a hit"),
        (preview.nothing_left, "letter", "nothing left to do, the images were answered meanwhile"),
        (
            preview.kept_answers,
            "kept answer",
            "read again first, free; what still cannot be read is sent again",
        ),
        (
            preview.paid_results,
            "call",
            "the paid result is asked for again first, free; paid again only if the provider no longer has it",
        ),
    ];
    let free = free.into_iter().filter(|(count, ..)| *count > 0);
    lines.extend(free.map(|(count, noun, what)| format!("  {}: {what}", counted(count, noun))));
    for paid in &preview.paid {
        let most = if paid.at_most > 0 { "at most " } else { "" };
        let twice = match paid.possible_duplicates {
            0 => String::new(),
            calls => format!(
                "; {calls} of them may have been paid already, so up to {} {} may be paid twice",
                paid.possibly_twice, paid.currency
            ),
        };
        lines.push(format!(
            "  {most}{} of {} would be paid: about {} {}{twice}",
            counted(paid.calls, "call"),
            paid.model,
            paid.cost,
            paid.currency
        ));
    }
    if preview.paid.is_empty() {
        lines.push("  nothing would be paid".to_owned());
    }
    for (reason, count) in &preview.fails_again {
        let (letters, fail, them) = match count {
            1 => ("letter", "fails", "it"),
            _ => ("letters", "fail", "them"),
        };
        lines.push(format!(
            "  {count} {letters} ({reason}) {fail} again as long as the workers are the same: mend the producer and discard {them}"
        ));
    }
    for (why, count) in &preview.cannot {
        lines.push(format!("{} cannot be sent again: {why}", counted(*count, "letter")));
    }
    lines.push("nothing was changed: the same command with --yes does it".to_owned());
    lines
}

fn print_sent(sent: &Sent, took: Duration, json: bool) {
    if json {
        // Plain data always serialises.
        say(serde_json::to_string_pretty(sent).unwrap_or_default());
        return;
    }
    say(format!(
        "sent {} again in {:.1} s{}",
        counted(sent.retried, "letter"),
        took.as_secs_f64(),
        others(sent.skipped)
    ));
    if sent.hit + sent.waiting > 0 {
        let were = if sent.hit == 1 { "was a hit" } else { "were hits" };
        let wait = if sent.waiting == 1 { "waits for its call" } else { "wait for their call" };
        say(format!("  {} {were}, {} {wait}", counted(sent.hit, "image"), sent.waiting));
    }
    if sent.cannot > 0 {
        let letters = counted(sent.cannot, "letter");
        say(format!("  {letters} cannot be sent again: without --yes this command says why"));
    }
}

fn others(skipped: u64) -> String {
    if skipped == 0 {
        String::new()
    } else {
        format!("; {} decided about meanwhile by another run", counted(skipped, "letter"))
    }
}

/// On a terminal only, on standard error.
fn bar(letters: usize, what: &'static str) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg} {bar:32} {pos}/{len} letters  {per_sec}  {eta} left");
    let bar =
        ProgressBar::new(letters as u64).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.set_message(what);
    bar
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dead::Paid;

    #[test]
    fn a_preview_says_what_is_paid_and_what_is_free() {
        let paid = Paid {
            model: "wanx".to_owned(),
            calls: 1,
            cost: "0.14".to_owned(),
            currency: "CNY".to_owned(),
            at_most: 0,
            possible_duplicates: 1,
            possibly_twice: "0.14".to_owned(),
        };
        let preview =
            Preview { letters: 1, images: 6, free_shared: 5, paid: vec![paid], ..Preview::default() };
        assert_eq!(
            in_words(&preview),
            [
                "1 letter would be sent again, for 6 images:",
                "  5 images: answered by a call of another image, at no further cost",
                "  1 call of wanx would be paid: about 0.14 CNY; 1 of them may have been paid already, so up to 0.14 CNY may be \
                 paid twice",
                "nothing was changed: the same command with --yes does it",
            ]
        );
    }
}
