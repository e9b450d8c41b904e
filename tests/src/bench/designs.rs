//! Ways to lay the cache out in tables, measured on MariaDB: how long one picture's lookup takes, how many pictures of one trace are
//! found, what writing a task costs, how large the tables are.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use sqlx::AssertSqlSafe;
use sqlx::mysql::MySqlPool;

use super::filled::{Filled, fill, pool};
use super::paid_site::percentiles;
use super::plan::Plan;
use super::report::{Cell, Report, Section};
use super::run::say;
use super::tables;

pub mod layout;

use layout::{How, IN_A_BLOCK, Layout, POSITIONS, ask, result};

/// A full-text index of more pictures takes an hour to fill and more disk than all the others together.
const MOST_FULL_TEXT: u64 = 1_000_000;
/// One way of asking is measured for no longer than this, and by three lookups at least.
const BUDGET: Duration = Duration::from_secs(15);
/// Pictures of the trace: a catalogue whose beginning is popular.
const CATALOGUE: u64 = 600;

/// Measures and reports.
pub async fn measure(plan: &Plan, report: &mut Report) {
    let server = Filled::start(plan).await;
    let rates = hit_rates(plan, &server).await;
    let mut section = Section::new("designs", "Ways to lay out the cache, on MariaDB");
    for images in plan.sizes().into_iter().take(plan.pick(usize::MAX, 1)) {
        for layout in Layout::ALL {
            if layout == Layout::JsonFullText && images > MOST_FULL_TEXT {
                continue;
            }
            of_size(plan, &server, layout, images, &rates, &mut section).await;
        }
    }
    section.note(format!(
        "Buffer pool {} MiB. Lookup: of one picture that is there, anywhere. Hit rate: the same trace for all, sets of 1 to {POSITIONS} pictures of \
         a catalogue of {CATALOGUE}, at any position. Write: committing a task of 1 to {POSITIONS} new pictures, durably. Size: data and \
         indexes, task rows included. A table of MariaDB has 64 indexes at most: a column a position ends there at the latest. \
         MariaDB has no index over the members of a JSON array (MySQL 8 has: multi-valued).",
        server.memory
    ));
    report.sections.push(section);
}

/// A layout in a database of its own.
async fn empty(server: &Filled, layout: Layout, name: &str) -> MySqlPool {
    let pool = pool(&server.database(name).await).await;
    for table in layout.create() {
        sqlx::query(AssertSqlSafe(table)).execute(&pool).await.unwrap();
    }
    pool
}

async fn of_size(
    plan: &Plan,
    server: &Filled,
    layout: Layout,
    images: u64,
    rates: &HashMap<&'static str, f64>,
    section: &mut Section,
) {
    let name = format!("design_{}_{images}", layout as u8);
    let pool = empty(server, layout, &name).await;
    for (statement, rows) in layout.fill(images) {
        fill(&pool, layout.name(), rows, &statement).await;
    }
    let written = written(plan, &pool, layout).await;
    let size = megabytes(&pool).await;
    for how in layout.ways() {
        let times = lookups(plan, &pool, *how, images).await;
        let (median, p99) = percentiles(&times);
        say(&format!("designs, {images}: {}, {}: {median:.3} ms", layout.name(), how.name()));
        section.rows.push(vec![
            ("images", Cell::Count(images)),
            ("design", Cell::Text(layout.name().to_owned())),
            ("asked", Cell::Text(how.name().to_owned())),
            ("lookups", Cell::Count(times.len() as u64)),
            ("median_ms", Cell::Number(median)),
            ("p99_ms", Cell::Number(p99)),
            ("hit_rate_per_cent", Cell::Number(rates[how.name()])),
            ("write_ms", Cell::Number(percentiles(&written).0)),
            ("megabytes", Cell::Number(size)),
        ]);
    }
    pool.close().await;
    server.drop_database(&name).await;
}

/// Of random pictures that are there, each asked for where it is.
async fn lookups(plan: &Plan, pool: &MySqlPool, how: How, images: u64) -> Vec<Duration> {
    let mut dice = StdRng::seed_from_u64(2);
    let (most, began) = (plan.pick(2000, 20), Instant::now());
    let mut times = Vec::new();
    let tasks = images / IN_A_BLOCK * POSITIONS as u64;
    // The first is for the connection.
    for nth in 0..=most {
        if nth > 3 && began.elapsed() > BUDGET {
            break;
        }
        let (task, size) = {
            let task = dice.random_range(0..tasks);
            (task, task % POSITIONS as u64 + 1)
        };
        let position = if how == How::First { 0 } else { dice.random_range(0..size) };
        let picture = task / POSITIONS as u64 * IN_A_BLOCK + size * (size - 1) / 2 + position + 1;
        let asked = Instant::now();
        let found = look_up(pool, how, picture, usize::try_from(position).unwrap()).await;
        if nth > 0 {
            times.push(asked.elapsed());
        }
        assert!(found, "{} does not find picture {picture}", how.name());
    }
    times
}

/// Whether a picture is found; panics when another's result is.
async fn look_up(pool: &MySqlPool, how: How, picture: u64, position: usize) -> bool {
    let (sql, parameters) = ask(how, picture, position);
    let query =
        parameters.iter().fold(sqlx::query_scalar::<_, String>(sql), |query, value| query.bind(value));
    let found = query.fetch_optional(pool).await.unwrap();
    if let Some(found) = &found {
        assert_eq!(*found, result(picture), "{}: another picture's result", how.name());
    }
    found.is_some()
}

/// What committing one task after the other takes.
async fn written(plan: &Plan, pool: &MySqlPool, layout: Layout) -> Vec<Duration> {
    let mut times = Vec::new();
    let mut next = 1_u64 << 40;
    for nth in 0..=plan.pick(400, 16) {
        let pictures: Vec<u64> = (next..next + nth % POSITIONS as u64 + 1).collect();
        next += POSITIONS as u64;
        let began = Instant::now();
        write(pool, layout, &format!("new-{nth}"), &pictures).await;
        if nth > 0 {
            times.push(began.elapsed());
        }
    }
    times
}

async fn write(pool: &MySqlPool, layout: Layout, task_id: &str, pictures: &[u64]) {
    let mut transaction = pool.begin().await.unwrap();
    for (statement, row) in layout.write(task_id, pictures) {
        let done = sqlx::query(statement).bind(row).execute(&mut *transaction).await.unwrap();
        assert!(done.rows_affected() > 0, "nothing was written");
    }
    transaction.commit().await.unwrap();
}

/// On the disk, data and indexes.
async fn megabytes(pool: &MySqlPool) -> f64 {
    let sql = "SELECT CAST(SUM(file_size) AS SIGNED) FROM information_schema.innodb_sys_tablespaces \
               WHERE name LIKE CONCAT(DATABASE(), '/%')";
    #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
    let bytes = tables::number(pool, sql.to_owned()).await as f64;
    bytes / 1_000_000.0
}

/// Of one trace, from empty tables on: which part of its pictures each way of asking finds.
async fn hit_rates(plan: &Plan, server: &Filled) -> HashMap<&'static str, f64> {
    let trace = trace(plan.pick(600, 30));
    let mut rates = HashMap::new();
    for layout in Layout::ALL {
        for how in layout.ways() {
            let name = format!("trace_{}_{}", layout as u8, *how as u8);
            let pool = empty(server, layout, &name).await;
            let (mut found, mut asked) = (0_u32, 0_u32);
            for (nth, pictures) in trace.iter().enumerate() {
                for (position, picture) in pictures.iter().enumerate() {
                    found += u32::from(look_up(&pool, *how, *picture, position).await);
                    asked += 1;
                }
                write(&pool, layout, &format!("trace-{nth}"), pictures).await;
            }
            rates.insert(how.name(), f64::from(found) * 100.0 / f64::from(asked));
            pool.close().await;
            server.drop_database(&name).await;
        }
    }
    rates
}

/// Sets of changing size; a picture may be at any position.
fn trace(tasks: usize) -> Vec<Vec<u64>> {
    let mut dice = StdRng::seed_from_u64(3);
    let set = |_| {
        let size = dice.random_range(1..=POSITIONS);
        let mut set: Vec<u64> = Vec::new();
        while set.len() < size {
            // The smaller of two: the beginning of the catalogue is popular.
            let picture = dice.random_range(0..CATALOGUE).min(dice.random_range(0..CATALOGUE));
            if !set.contains(&picture) {
                set.push(picture);
            }
        }
        set
    };
    (0..tasks).map(set).collect()
}
