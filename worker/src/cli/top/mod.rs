//! `retouch top`: everything that goes on, on one screen, again and again. It decides nothing; only a lane can be stopped
//! and started, as by `retouch lanes`.

use std::io::IsTerminal;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use clap::Args;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;

use super::say::say;
use super::signals::Signals;
use super::{Ending, Failure};
use crate::app::open_store;
use crate::broker::{Broker, embedded::Embedded, rabbitmq::RabbitMq};
use crate::config::{BrokerChoice, Settings};
use crate::overview::{Overview, Watcher};
use crate::store::{Store, StoreError};

mod draw;
mod screen;
mod table;

use draw::View;
use screen::{Key, Keys, Screen};

/// Looking takes at most this part of the time: a database that is slow to answer is asked less often.
const SHARE: u32 = 10;
/// But what is shown is never older than this by it.
const LONGEST_PAUSE: Duration = Duration::from_secs(8);
/// A look that takes longer has lost its connection: that is said, and the next one takes another.
const LOOK_WITHIN: Duration = Duration::from_secs(6);
/// As wide as text is printed where no terminal says otherwise.
const WIDTH: u16 = 100;

/// Watch queues, lanes, replicas, hits, money and failures
///
/// Keys: q ends, ↑ and ↓ choose a lane, p pauses or resumes it, ? helps.
///
/// Example: retouch top --once
#[derive(Debug, Args)]
pub(super) struct Top {
    /// Print it once as text, and end; so it does where the output is no terminal
    #[arg(long)]
    once: bool,
    /// Between two looks, in seconds
    #[arg(long, default_value_t = 2.0, value_name = "SECONDS")]
    interval: f64,
}

impl Top {
    pub(super) async fn run(self, settings: &Settings, json: bool) -> Result<Ending, Failure> {
        let interval = Duration::try_from_secs_f64(self.interval).ok();
        let interval = interval.filter(|interval| (0.1..=3600.0).contains(&interval.as_secs_f64()));
        let interval = interval.ok_or_else(|| Failure::Usage(anyhow!("--interval must be 0.1 to 3600")))?;
        let store = open_store(settings).await.map_err(Failure::Unreachable)?;
        let broker = broker(settings, &store).await.map_err(Failure::Unreachable)?;
        let watcher = Watcher::new(store.clone(), Some(Arc::clone(&broker)));
        let place = settings.database.to_string();
        let done = if json || self.once || !std::io::stdout().is_terminal() {
            once(watcher, &place, json).await
        } else {
            watch(watcher, &store, &place, interval).await
        };
        broker.close().await;
        store.close().await;
        done
    }
}

/// Not reached for before it is asked: top is looked at when things are broken.
async fn broker(settings: &Settings, store: &Store) -> anyhow::Result<Arc<dyn Broker>> {
    match (&settings.broker, store.sqlite_pool()) {
        (BrokerChoice::RabbitMq { url }, _) => {
            Ok(Arc::new(RabbitMq::lazy(url, settings.topology.clone()).context("AMQP_URL")?))
        }
        (BrokerChoice::Embedded, Some(pool)) => Ok(Arc::new(Embedded::beside(&pool).await?)),
        (BrokerChoice::Embedded, None) => Err(anyhow!("the embedded broker needs a SQLite file")),
    }
}

async fn once(mut watcher: Watcher, place: &str, json: bool) -> Result<Ending, Failure> {
    let overview = watcher.look().await.map_err(Failure::unreachable)?;
    if json {
        // Plain data always serialises.
        say(serde_json::to_string_pretty(&overview).unwrap_or_default());
    } else {
        let width = terminal_size::terminal_size().map_or(WIDTH, |(width, _)| width.0.max(40));
        say(text(&overview, place, width));
    }
    Ok(Ending::Done)
}

/// The whole of it as text, however high that is.
fn text(overview: &Overview, place: &str, width: u16) -> String {
    let mut view = View::new(place);
    view.overview = Some(overview.clone());
    view.interactive = false;
    let area = Rect::new(0, 0, width, view.height());
    let mut buffer = Buffer::empty(area);
    view.draw(area, &mut buffer);
    let line = |row: u16| {
        let cells = (0..width).map(|column| buffer[(column, row)].symbol());
        cells.collect::<String>().trim_end().to_owned()
    };
    (0..area.height).map(line).collect::<Vec<_>>().join("\n")
}

/// Looks for ever, in a task of its own, so that keys are answered meanwhile.
fn look(
    mut watcher: Watcher,
    interval: Duration,
    now: Arc<Notify>,
) -> (mpsc::Receiver<Result<Overview, StoreError>>, JoinHandle<()>) {
    let (seen, looks) = mpsc::channel(1);
    let looking = tokio::spawn(async move {
        loop {
            let began = Instant::now();
            let looked = tokio::time::timeout(LOOK_WITHIN, watcher.look()).await;
            let looked = looked.unwrap_or_else(|_late| {
                Err(StoreError::Unavailable(format!("no answer within {LOOK_WITHIN:?}")))
            });
            let pause = pause(interval, began.elapsed(), looked.is_ok());
            if seen.send(looked).await.is_err() {
                return;
            }
            tokio::select! {
                () = now.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    });
    (looks, looking)
}

/// A look that failed is not worth a longer pause: it may be over.
fn pause(interval: Duration, took: Duration, is_good: bool) -> Duration {
    if is_good { interval.max((took * SHARE).min(LONGEST_PAUSE)) } else { interval }
}

async fn watch(watcher: Watcher, store: &Store, place: &str, interval: Duration) -> Result<Ending, Failure> {
    let mut signals = Signals::new().map_err(Failure::unreachable)?;
    let mut screen = Screen::open().map_err(Failure::unreachable)?;
    let mut keys = Keys::read();
    let now = Arc::new(Notify::new());
    let (mut looks, looking) = look(watcher, interval, Arc::clone(&now));
    let mut view = View::new(place);
    loop {
        screen.draw(&view).map_err(Failure::unreachable)?;
        tokio::select! {
            _ = signals.next() => break,
            seen = looks.recv() => match seen {
                Some(seen) => view.saw(seen),
                // A look that panicked has given the terminal back already.
                None => return Err(Failure::Unreachable(anyhow!("looking ended by itself"))),
            },
            key = keys.next() => match key {
                None | Some(Key::Quit) => break,
                Some(key) => if let Some(lane) = view.press(key) {
                    let done = if view.is_paused(&lane) {
                        store.resume_lane(&lane).await
                    } else {
                        store.pause_lane(&lane).await
                    };
                    if let Err(error) = done {
                        view.error = Some(error.to_string());
                    }
                    now.notify_one();
                },
            },
        }
    }
    drop(screen);
    looking.abort();
    Ok(Ending::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_that_failed_is_repeated_after_the_interval() {
        let seconds = Duration::from_secs;
        assert_eq!(pause(seconds(2), seconds(6), false), seconds(2));
        assert_eq!(pause(seconds(2), Duration::from_millis(500), true), seconds(5));
        assert_eq!(pause(seconds(2), seconds(5), true), LONGEST_PAUSE);
        assert_eq!(pause(seconds(60), seconds(5), true), seconds(60), "as a person asked");
    }
}
