//! What `top` shows, drawn into a buffer of any size: what does not fit is cut from the end of each list, and the last
//! sections go first.

use std::time::Duration;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};

use super::super::lanes::pace;
use super::screen::Key;
use super::table::{Column, Line, draw, number, word};
use crate::overview::{
    Answers, FailureGlance, LaneGlance, MoneyGlance, Overview, QueueGlance, ReplicaGlance,
};
use crate::store::StoreError;
use crate::words::{age, counted, left};

const HEAD: Style = Style::new().add_modifier(Modifier::BOLD);
const FAINT: Style = Style::new().fg(Color::DarkGray);
const GOOD: Style = Style::new().fg(Color::Green);
const BAD: Style = Style::new().fg(Color::Red);
const SLOW: Style = Style::new().fg(Color::Yellow);

const IMAGES: &[Column] = &[
    number("hit", 8, 0),
    number("joined", 8, 48),
    number("paid", 8, 0),
    number("failed", 8, 0),
    number("hit rate", 8, 56),
    number("paid for", 16, 76),
    number("saved", 16, 94),
    number("for nothing", 12, 106),
];
const QUEUES: &[Column] = &[number("ready", 9, 0), number("consumers", 9, 40)];
const LANES: &[Column] = &[
    word("state", 12, 0),
    number("queued", 8, 0),
    number("in flight", 9, 50),
    number("submits", 9, 76),
    number("spent today", 20, 64),
];
const REPLICAS: &[Column] = &[
    word("version", 9, 76),
    number("up", 8, 40),
    number("intake", 6, 50),
    number("waiting", 7, 58),
    number("sending", 7, 0),
    number("polling", 7, 0),
    number("keeping", 7, 66),
];
const FAILURES: &[Column] = &[word("from", 24, 90), word("task", 18, 70), number("ago", 8, 0)];
const KEYS: &[&str] = &[
    "q      ends",
    "↑ ↓    choose a lane",
    "p      pauses the lane, or resumes it: y says yes",
    "?      this",
    "",
    "hit: from the cache · joined: by another image's call · paid: by its own call",
    "ready: messages that nobody has yet · consumers: replicas that take them",
    "in flight: sent and not over, of as many as may be, over all replicas",
];

/// What is to be seen.
pub(super) struct View {
    place: String,
    pub(super) overview: Option<Overview>,
    /// Why what is shown is old.
    pub(super) error: Option<String>,
    /// A person sits before it.
    pub(super) interactive: bool,
    selected: usize,
    help: bool,
    /// A lane that is to be paused or resumed, if it is meant.
    asked: Option<String>,
}

/// A list with its title.
struct Section {
    title: String,
    columns: &'static [Column],
    lines: Vec<Line>,
}

impl View {
    pub(super) fn new(place: &str) -> Self {
        Self {
            place: place.to_owned(),
            overview: None,
            error: None,
            interactive: true,
            selected: 0,
            help: false,
            asked: None,
        }
    }

    /// What a look has seen. One that saw nothing leaves the last one, and says why.
    pub(super) fn saw(&mut self, seen: Result<Overview, StoreError>) {
        match seen {
            Ok(overview) => {
                self.selected = self.selected.min(overview.lanes.len().saturating_sub(1));
                (self.overview, self.error) = (Some(overview), None);
            }
            Err(error) => self.error = Some(error.to_string()),
        }
    }

    /// A key was pressed; returns the lane that is to be switched.
    pub(super) fn press(&mut self, key: Key) -> Option<String> {
        let lanes = self.overview.as_ref().map_or(&[][..], |overview| &overview.lanes);
        let asked = self.asked.take();
        match key {
            Key::Up => self.selected = self.selected.saturating_sub(1),
            Key::Down => self.selected = (self.selected + 1).min(lanes.len().saturating_sub(1)),
            Key::Pause => self.asked = lanes.get(self.selected).map(|lane| lane.name.clone()),
            Key::Yes => return asked,
            Key::Help => self.help = !self.help,
            Key::Quit | Key::Other => {}
        }
        None
    }

    pub(super) fn is_paused(&self, lane: &str) -> bool {
        let lanes = self.overview.iter().flat_map(|overview| &overview.lanes);
        lanes.filter(|known| known.name == lane).any(|lane| lane.state == "paused")
    }

    /// Rows that are needed to show everything.
    pub(super) fn height(&self) -> u16 {
        let sections = self.sections();
        let rows: usize = sections.iter().map(|section| section.lines.len() + 2).sum();
        u16::try_from(rows + 1 + usize::from(self.interactive)).unwrap_or(u16::MAX)
    }

    /// Draws it.
    pub(super) fn draw(&self, area: Rect, buffer: &mut Buffer) {
        if area.width == 0 || area.height == 0 {
            return;
        }
        let row = |y: u16| Rect::new(area.x, area.y + y, area.width, 1);
        draw(&[self.headline()], HEAD, &[], row(0), buffer);
        let last = area.height - 1;
        let end = if self.interactive && last > 0 {
            let (text, style) = self.foot();
            draw(&[text], style, &[], row(last), buffer);
            last
        } else {
            area.height
        };
        if self.help {
            for (y, line) in (2..end).zip(KEYS) {
                draw(&[(*line).to_owned()], Style::new(), &[], row(y), buffer);
            }
            return;
        }
        let sections = self.sections();
        let shares = shares(&sections, usize::from(end.saturating_sub(1)));
        let mut y = 1;
        for (section, share) in sections.iter().zip(shares).filter(|(_, share)| share.rows > 0) {
            y += u16::from(share.apart);
            let titles = section.columns.iter().map(|column| column.title.to_owned());
            let titles: Vec<_> = std::iter::once(section.title.clone()).chain(titles).collect();
            draw(&titles, HEAD.add_modifier(Modifier::UNDERLINED), section.columns, row(y), buffer);
            let room = share.rows - 1;
            let cut = section.lines.len() > room;
            let shown = if cut { room.saturating_sub(1) } else { room };
            for line in section.lines.iter().take(shown) {
                y += 1;
                draw(&line.cells, line.style, section.columns, row(y), buffer);
            }
            if cut && room > 0 {
                y += 1;
                let more = format!("… {} more", section.lines.len() - shown);
                draw(&[more], FAINT, &[], row(y), buffer);
            }
            y += 1;
        }
    }

    fn headline(&self) -> String {
        match &self.overview {
            None => format!("Retouch · {}", self.place),
            Some(Overview { version, at, replicas, .. }) => {
                let count = counted(replicas.len() as u64, "replica");
                format!("Retouch {version} · {count} · {} UTC · {}", at.format("%H:%M:%S"), self.place)
            }
        }
    }

    fn foot(&self) -> (String, Style) {
        if let Some(lane) = &self.asked {
            let what = if self.is_paused(lane) { "resume" } else { "pause" };
            return (format!("{what} {lane} for all replicas? y: yes, any other key: no"), SLOW);
        }
        if let Some(error) = &self.error {
            return (format!("not up to date: {error}"), BAD);
        }
        if self.overview.is_none() {
            return ("looking …".to_owned(), FAINT);
        }
        ("q end · ↑↓ choose a lane · p pause or resume it · ? help".to_owned(), FAINT)
    }

    fn sections(&self) -> Vec<Section> {
        let Some(overview) = &self.overview else { return Vec::new() };
        let chosen = |at: usize| self.interactive && at == self.selected;
        let lanes = overview.lanes.iter().enumerate().flat_map(|(at, lane)| lane_lines(lane, chosen(at)));
        let failures = &overview.failures;
        let open = match failures.more {
            true => format!("failures ({}+ open)", failures.open),
            false => format!("failures ({} open)", failures.open),
        };
        let section = |title: &str, columns, lines| Section { title: title.to_owned(), columns, lines };
        vec![
            section("images", IMAGES, image_lines(overview)),
            section("queues", QUEUES, overview.queues.iter().map(queue_line).collect()),
            section("lanes", LANES, lanes.collect()),
            section("replicas", REPLICAS, overview.replicas.iter().map(replica_line).collect()),
            section(&open, FAILURES, failures.last.iter().map(failure_line).collect()),
        ]
    }
}

/// The rows of one section, its title included.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Share {
    rows: usize,
    /// An empty row before it.
    apart: bool,
}

/// Shares rows out: two to each section as far as they go, then to each, in turn, what it still wants; what is left goes
/// between them.
fn shares(sections: &[Section], rows: usize) -> Vec<Share> {
    let wanted: Vec<usize> = sections.iter().map(|section| section.lines.len() + 1).collect();
    let mut shares = vec![Share::default(); sections.len()];
    let mut left = rows;
    for (share, wanted) in shares.iter_mut().zip(&wanted) {
        let least = (*wanted).min(2);
        if left < least {
            break;
        }
        share.rows = least;
        left -= least;
    }
    while left > 0 {
        let mut given = false;
        for (share, wanted) in shares.iter_mut().zip(&wanted) {
            if left > 0 && share.rows > 0 && share.rows < *wanted {
                share.rows += 1;
                left -= 1;
                given = true;
            }
        }
        if !given {
            break;
        }
    }
    if left >= sections.len() {
        shares.iter_mut().for_each(|share| share.apart = share.rows > 0);
    }
    shares
}

fn image_lines(overview: &Overview) -> Vec<Line> {
    let images = &overview.images;
    let mut lines = vec![answers("last minute", &images.minute), answers("last hour", &images.hour)];
    if let Some(since) = &images.since {
        lines.push(answers(&format!("since {}", since.began.format("%H:%M:%S")), &since.answers));
    }
    lines
}

fn answers(span: &str, answers: &Answers) -> Line {
    let money = |of: fn(&MoneyGlance) -> &str| {
        let amounts = answers.money.iter().map(|money| format!("{} {}", of(money), money.currency));
        let all = amounts.collect::<Vec<_>>().join(", ");
        if all.is_empty() { "–".to_owned() } else { all }
    };
    Line::new([
        span.to_owned(),
        answers.hit.to_string(),
        answers.joined.to_string(),
        answers.paid.to_string(),
        answers.failed.to_string(),
        answers.hit_percent.map_or_else(|| "–".to_owned(), |percent| format!("{percent} %")),
        money(|money| &money.paid),
        money(|money| &money.saved),
        money(|money| &money.lost),
    ])
}

fn queue_line(queue: &QueueGlance) -> Line {
    let name = match &queue.error {
        Some(error) => format!("{}: {error}", queue.name),
        None => queue.name.clone(),
    };
    let ready = queue.ready.map_or_else(|| "?".to_owned(), |ready| ready.to_string());
    let style = if queue.error.is_some() { BAD } else { Style::new() };
    Line::new([name, ready, queue.consumers.to_string()]).style(style)
}

fn lane_lines(lane: &LaneGlance, chosen: bool) -> Vec<Line> {
    let at_most = lane.max_in_flight.map_or_else(String::new, |most| format!("/{most}"));
    let currency = lane.currency.as_ref().map_or_else(String::new, |currency| format!(" {currency}"));
    let spent = match &lane.daily_budget {
        Some(budget) => format!("{} of {budget}{currency}", lane.spent_today),
        None => format!("{}{currency}", lane.spent_today),
    };
    let style = match lane.state {
        "open" => GOOD,
        "slowed down" => SLOW,
        _ => BAD,
    };
    let style = if chosen { style.add_modifier(Modifier::REVERSED) } else { style };
    let line = Line::new([
        lane.name.clone(),
        lane.state.to_owned(),
        lane.queued.to_string(),
        format!("{}{at_most}", lane.in_flight),
        lane.submit_interval_ms.map_or_else(|| "–".to_owned(), pace),
        spent,
    ]);
    let mut lines = vec![line.style(style)];
    if let Some(reason) = &lane.reason {
        let left = |millis| left(Duration::from_millis(millis));
        let next = lane.probe_in_ms.map(|millis| format!(" (next try in {})", left(millis)));
        lines.push(Line::new([format!("  {reason}{}", next.unwrap_or_default())]).style(FAINT));
    }
    lines
}

fn replica_line(replica: &ReplicaGlance) -> Line {
    let doing = &replica.doing;
    let name = match doing.draining {
        true => format!("{} (stopping)", replica.name),
        false => replica.name.clone(),
    };
    let calls = doing.calls;
    let counts = [doing.intake, calls.waiting, calls.sending, calls.polling, calls.keeping];
    let cells = [name, replica.version.clone(), span(replica.up_ms)];
    let style = if doing.draining { SLOW } else { Style::new() };
    Line::new(cells.into_iter().chain(counts.map(|count| count.to_string()))).style(style)
}

fn failure_line(failure: &FailureGlance) -> Line {
    let state = if failure.state == "open" { String::new() } else { format!(" ({})", failure.state) };
    let line = Line::new([
        format!("{}{state}: {}", failure.reason, failure.message),
        failure.queue.clone(),
        failure.task_id.clone().unwrap_or_else(|| "–".to_owned()),
        span(failure.ago_ms),
    ]);
    if failure.state == "open" { line } else { line.style(FAINT) }
}

fn span(millis: u64) -> String {
    age(millis / 1000)
}

#[cfg(test)]
#[path = "draw_tests.rs"]
mod tests;
