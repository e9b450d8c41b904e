//! Tasks of one picture, all of them hits: how many a second each contender works off, in turns.

use super::contender::{Contender, Turn, turn};
use super::gallery::Gallery;
use super::plain::{Kind, Plain};
use super::plan::Plan;
use super::report::{Cell, Check, Report, Row, Section};
use super::retouch::Retouch;
use super::run::say;
use super::stats::Spread;
use std::time::Duration;

/// Different pictures: those of a shop that sells them all day.
const PICTURES: u64 = 100;
/// Tasks of the first turn, by which the length of the others is chosen.
const FIRST: u64 = 200;

/// The floor, the plain worker and Retouch, by their place among the contenders.
const RETOUCH: usize = 0;
const FLOOR: usize = 1;
const PLAIN: usize = 2;

/// Measures and reports.
pub async fn measure(plan: &Plan, report: &mut Report) {
    let gallery = Gallery::start(plan.pick(PICTURES, 5)).await;
    let capacity = gallery.capacity(plan.pick(Duration::from_secs(2), Duration::from_millis(200))).await;
    let contenders = contenders(plan, &gallery).await;
    let turns = in_turns(plan, &gallery, &contenders).await;
    let mut section = Section::new("hits", "All-hit tasks of one picture of 50 KB, a second");
    for (contender, all) in contenders.iter().zip(&turns) {
        section.rows.push(row(&contender.name(), all, &turns));
    }
    section.note(format!(
        "From the first delivery to the last commit; the pictures' server alone serves {capacity:.0} a second. CPU: milliseconds for \
         a thousand tasks. Retouch and the floor publish a confirmed event for each task; the plain designs publish none."
    ));
    report.sections.push(section);
    if !plan.quick {
        let most = |of: usize| spread(&turns[of], |turn| turn.rate).most;
        let fetched = most(RETOUCH).max(most(FLOOR));
        let what = "pictures' server: what it serves alone to what the fastest contender fetches";
        report.checks.push(Check::at_least(what, capacity / fetched, 2.0));
        let ratio = |of: usize| ratios(&turns[RETOUCH], &turns[of]).median;
        report.checks.push(Check::at_least("hits: Retouch to the plain Python worker", ratio(PLAIN), 20.0));
        report.checks.push(Check::at_least("hits: Retouch to the floor", ratio(FLOOR), 0.6));
    }
}

/// The turns of each contender; the first round only shows how many tasks a turn needs.
async fn in_turns(plan: &Plan, gallery: &Gallery, contenders: &[Box<dyn Contender>]) -> Vec<Vec<Turn>> {
    let least = plan.pick(FIRST, 10);
    let (mut next, mut counts) = (0, vec![least; contenders.len()]);
    let mut turns = vec![Vec::new(); contenders.len()];
    for round in 0..=plan.rounds {
        for place in 0..contenders.len() {
            // Rotate, so that no contender always finds the machine warm.
            let at = (place + round) % contenders.len();
            let turn = turn(&*contenders[at], gallery, next..next + counts[at]).await;
            next += counts[at];
            say(&format!("hits, round {round}: {} {:.0}/s", contenders[at].name(), turn.rate));
            counts[at] = plan.tasks(turn.rate, least);
            if round > 0 {
                turns[at].push(turn);
            }
        }
    }
    turns
}

async fn contenders(plan: &Plan, gallery: &Gallery) -> Vec<Box<dyn Contender>> {
    let mut contenders: Vec<Box<dyn Contender>> = Vec::new();
    let retouch = async |processes| {
        let retouch = Retouch::new(processes).await;
        retouch.warm(gallery).await;
        Box::new(retouch)
    };
    contenders.push(retouch(1).await);
    let plain = [
        Kind::Floor { events: true },
        Kind::Python(1),
        Kind::Python(2),
        Kind::Celery,
        Kind::Dramatiq,
        Kind::Floor { events: false },
    ];
    for kind in plain.into_iter().filter(|kind| !(plan.quick && kind.is_python())) {
        contenders.push(Box::new(Plain::new(kind, gallery).await));
    }
    contenders.push(retouch(2).await);
    contenders
}

fn row(name: &str, all: &[Turn], turns: &[Vec<Turn>]) -> Row {
    let costs = |of: fn(&Turn) -> Option<f64>| {
        let costs: Option<Vec<f64>> = all.iter().map(of).collect();
        costs.map_or(Cell::None("not our server"), |costs| Cell::Number(Spread::of(&costs).median))
    };
    let python = turns.len() > 5;
    vec![
        ("contender", Cell::Text(name.to_owned())),
        ("tasks_a_second", Cell::Spread(spread(all, |turn| turn.rate))),
        ("tasks", Cell::Count(all.iter().map(|turn| turn.tasks).sum())),
        ("to_floor", Cell::Spread(ratios(all, &turns[FLOOR]))),
        (
            "to_plain_python",
            if python { Cell::Spread(ratios(all, &turns[PLAIN])) } else { Cell::None("quick") },
        ),
        ("worker_cpu", costs(|turn| Some(turn.costs.worker))),
        ("database_cpu", costs(|turn| turn.costs.database)),
        ("broker_cpu", costs(|turn| turn.costs.broker)),
        ("pictures_cpu", costs(|turn| Some(turn.costs.pictures))),
    ]
}

fn spread(turns: &[Turn], of: fn(&Turn) -> f64) -> Spread {
    Spread::of(&turns.iter().map(of).collect::<Vec<_>>())
}

/// Round by round.
fn ratios(of: &[Turn], to: &[Turn]) -> Spread {
    Spread::of(&of.iter().zip(to).map(|(of, to)| of.rate / to.rate).collect::<Vec<_>>())
}
