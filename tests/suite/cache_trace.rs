//! The benefit of eviction: a trace of requests with skewed popularity, sizes and prices, under a limit of a
//! tenth of all bytes, through the real eviction on SQLite, compared with least-recently-used and
//! first-in-first-out. Prints a table. `RETOUCH_TEST_TRACE=50000` runs it with fifty thousand requests.

use std::collections::HashMap;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use retouch_shared::key::Digest32;
use retouch_worker::cache::evict;
use retouch_worker::config::CacheLimits;
use retouch_worker::store::{DatabaseLocation, Store};
use serde_json::json;
use sqlx::SqlitePool;
use sqlx::sqlite::SqliteConnectOptions;

/// Pictures that the requests choose from, a fifth of their number.
const OF_REQUESTS: usize = 5;
/// Requests between two looks at the limit, as a sweep comes now and then.
const BETWEEN: usize = 25;
/// What an edit costs, in millionths: free, cheap and dear ones.
const PRICES: [i64; 6] = [0, 20_000, 140_000, 140_000, 200_000, 500_000];

struct Trace {
    requests: Vec<usize>,
    bytes: Vec<i64>,
    prices: Vec<i64>,
    limit: i64,
}

impl Trace {
    fn new(length: usize) -> Self {
        let mut dice = StdRng::seed_from_u64(20_261_125);
        let pictures = length / OF_REQUESTS;
        let mut sum = 0.0;
        #[expect(clippy::cast_precision_loss, reason = "small")]
        let cumulated: Vec<f64> = (0..pictures)
            .map(|rank| {
                sum += 1.0 / (rank as f64 + 1.0).powf(0.9);
                sum
            })
            .collect();
        // Ten times in all, popularity moves on by a twentieth.
        let requests: Vec<usize> = (0..length)
            .map(|n| {
                let at = dice.random_range(0.0..sum);
                let rank = cumulated.partition_point(|upto| *upto < at);
                (rank + n * 10 / length * pictures / 20) % pictures
            })
            .collect();
        let bytes: Vec<i64> = (0..pictures).map(|_| size(&mut dice)).collect();
        let prices = (0..pictures).map(|_| PRICES[dice.random_range(0..PRICES.len())]).collect();
        let mut asked: Vec<usize> = requests.clone();
        asked.sort_unstable();
        asked.dedup();
        let limit = asked.iter().map(|picture| bytes[*picture]).sum::<i64>() / 10;
        Self { requests, bytes, prices, limit }
    }
}

/// Twenty kilobytes to six megabytes, most of them around half a megabyte.
fn size(dice: &mut impl Rng) -> i64 {
    let bell: f64 = (0..12).map(|_| dice.random_range(0.0..1.0)).sum::<f64>() - 6.0;
    #[expect(clippy::cast_possible_truncation, reason = "within the clamp")]
    let bytes = (13.0 + 0.9 * bell).exp().clamp(2e4, 6e6) as i64;
    bytes
}

#[derive(Default)]
struct Outcome {
    hits: usize,
    saved: i64,
}

/// The entry that goes first is the one that was used, or made, the longest ago.
fn in_order(trace: &Trace, by_use: bool) -> Outcome {
    let (mut cached, mut used, mut outcome) = (HashMap::<usize, usize>::new(), 0, Outcome::default());
    for (now, picture) in trace.requests.iter().enumerate() {
        match cached.get_mut(picture) {
            Some(at) => {
                outcome.hits += 1;
                outcome.saved += trace.prices[*picture];
                if by_use {
                    *at = now;
                }
            }
            None => {
                cached.insert(*picture, now);
                used += trace.bytes[*picture];
            }
        }
        if (now + 1) % BETWEEN == 0 && used > trace.limit {
            let mut oldest: Vec<(usize, usize)> =
                cached.iter().map(|(picture, at)| (*at, *picture)).collect();
            oldest.sort_unstable();
            for (_, picture) in oldest {
                if used <= trace.limit {
                    break;
                }
                cached.remove(&picture);
                used -= trace.bytes[picture];
            }
        }
    }
    outcome
}

fn key(picture: usize) -> Digest32 {
    Digest32::of(format!("picture {picture}").as_bytes())
}

const NOW: &str = "strftime('%Y-%m-%d %H:%M:%f', 'now')";

/// Requests are written in groups; evictions are those of the workers' sweep.
async fn with_ours(trace: &Trace) -> Outcome {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("trace.sqlite");
    let store = Store::open(&DatabaseLocation::Sqlite(path.clone()), 4).unwrap();
    store.migrate().await.unwrap();
    let options = SqliteConnectOptions::new().filename(&path).busy_timeout(Duration::from_secs(20));
    let raw =
        SqlitePool::connect_with(options.synchronous(sqlx::sqlite::SqliteSynchronous::Off)).await.unwrap();
    let limit = u64::try_from(trace.limit).unwrap();
    let limits = CacheLimits { max_bytes: Some(limit), ..CacheLimits::default() };
    let insert = format!(
        "INSERT INTO image_edit_cache (edit_key, image_hash, edit_type, prompt, provider, model, params, result_url, result_hash, content_type, \
            width, height, bytes, price_micros, currency, hit_count, last_hit_at, created_at, updated_at) \
        SELECT unhex(j.value ->> 'key'), j.value ->> 'key', 't', '', 'p', 'm', '{{}}', 'u', j.value ->> 'key', 'image/png', 1, 1, \
            j.value ->> 'bytes', j.value ->> 'price', 'CNY', j.value ->> 'hits', {NOW}, {NOW}, {NOW} FROM json_each(?) j WHERE true \
        ON CONFLICT (edit_key) DO UPDATE SET hit_count = hit_count + excluded.hit_count, last_hit_at = excluded.last_hit_at"
    );
    let by_key: HashMap<Digest32, usize> =
        (0..trace.bytes.len()).map(|picture| (key(picture), picture)).collect();
    let (mut cached, mut used, mut outcome) =
        (std::collections::HashSet::<usize>::new(), 0, Outcome::default());
    for bunch in trace.requests.chunks(BETWEEN) {
        let mut counts = std::collections::BTreeMap::<usize, i64>::new();
        for picture in bunch {
            if cached.insert(*picture) {
                used += trace.bytes[*picture];
            } else {
                outcome.hits += 1;
                outcome.saved += trace.prices[*picture];
            }
            *counts.entry(*picture).or_default() += 1;
        }
        let rows: Vec<_> = counts
            .iter()
            .map(|(n, hits)| json!({"key": key(*n), "bytes": trace.bytes[*n], "price": trace.prices[*n], "hits": hits}))
            .collect();
        sqlx::query(sqlx::AssertSqlSafe(insert.clone()))
            .bind(json!(rows).to_string())
            .execute(&raw)
            .await
            .unwrap();
        while used > trace.limit {
            let gone = evict::step(&store, &limits).await.unwrap();
            assert!(!gone.is_empty(), "{used} bytes of {}, and nothing goes", trace.limit);
            for entry in gone {
                let picture = by_key[&entry.edit_key];
                assert!(cached.remove(&picture));
                used -= trace.bytes[picture];
            }
        }
    }
    assert_eq!(store.cache_bytes().await.unwrap(), u64::try_from(used).unwrap());
    outcome
}

#[tokio::test]
async fn eviction_saves_more_money_than_lru_and_fifo() {
    let length = std::env::var("RETOUCH_TEST_TRACE").ok().and_then(|text| text.parse().ok()).unwrap_or(6_000);
    let trace = Trace::new(length);
    let (ours, lru, fifo) = (with_ours(&trace).await, in_order(&trace, true), in_order(&trace, false));
    println!("{length} requests, {} pictures, limit {} bytes", trace.bytes.len(), trace.limit);
    println!("| eviction | hit rate | money saved |\n|---|---|---|");
    for (name, outcome) in [("ours", &ours), ("least recently used", &lru), ("first in, first out", &fifo)] {
        #[expect(clippy::cast_precision_loss, reason = "for people")]
        let (rate, saved) = (outcome.hits as f64 / length as f64 * 100.0, outcome.saved as f64 / 1e6);
        println!("| {name} | {rate:.1} % | {saved:.0} CNY |");
    }
    assert!(ours.saved > lru.saved.max(fifo.saved), "{} {} {}", ours.saved, lru.saved, fifo.saved);
    assert!(
        ours.hits * 10 > lru.hits * 7,
        "{} of {}: hits must not be given up for money",
        ours.hits,
        lru.hits
    );
}
