//! Every SQL statement of the embedded broker. All times are of the database's clock, in milliseconds.
//!
//! A message is free (no owner) or held (an owner and a time until which it is the owner's). Only `claim` makes it held,
//! only `acknowledge` and `give_back` end that, guarded by the owner.

use std::time::Duration;

use retouch_shared::topology::DELIVERY_LIMIT;
use sqlx::{Row, SqliteConnection, sqlite::SqliteRow};

use crate::broker::{Headers, Message};

/// A claimed message.
pub(super) struct Claimed {
    pub(super) id: i64,
    pub(super) message: Message,
    pub(super) redelivered: bool,
    pub(super) broker_death: Option<(String, String)>,
}

/// How long a claim holds without being renewed.
pub(super) const LOCK: Duration = Duration::from_secs(60);

pub(super) async fn declare(connection: &mut SqliteConnection, queue: &str) -> sqlx::Result<()> {
    let insert = "INSERT INTO broker_queues (name) VALUES (?1) ON CONFLICT DO NOTHING";
    sqlx::query(insert).bind(queue).execute(connection).await.map(|_done| ())
}

/// Puts a message into a queue; `false` when there is no such queue.
pub(super) async fn insert(
    connection: &mut SqliteConnection,
    queue: &str,
    message: &Message,
    delay: Duration,
) -> sqlx::Result<bool> {
    // The clock is cut to milliseconds, so one more keeps a delay from being too short.
    let wait = if delay.is_zero() { 0 } else { millis(delay).saturating_add(1) };
    let headers =
        serde_json::to_string(&message.headers).map_err(|error| sqlx::Error::Encode(error.into()))?;
    let insert = "INSERT INTO broker_messages
          (queue, payload, headers, reply_to, correlation_id, message_id, visible_at)
        SELECT name, ?2, ?3, ?4, ?5, ?6, CAST(unixepoch('subsec') * 1000 AS INTEGER) + ?7
        FROM broker_queues WHERE name = ?1";
    let done = sqlx::query(insert)
        .bind(queue)
        .bind(&message.payload[..])
        .bind(headers)
        .bind(&message.reply_to)
        .bind(&message.correlation_id)
        .bind(&message.message_id)
        .bind(wait)
        .execute(connection)
        .await?;
    Ok(done.rows_affected() == 1)
}

/// Takes up to `most` messages that are due, oldest first, and no further one once they have `most_bytes`.
pub(super) async fn claim(
    connection: &mut SqliteConnection,
    queue: &str,
    owner: &str,
    most: i64,
    most_bytes: i64,
) -> sqlx::Result<Vec<Claimed>> {
    let claim = "UPDATE broker_messages
        SET owner = ?2, visible_at = CAST(unixepoch('subsec') * 1000 AS INTEGER) + ?4
        WHERE id IN (
          SELECT id FROM (
            SELECT id, bytes, SUM(bytes) OVER (ORDER BY visible_at, id) AS total FROM (
              SELECT id, visible_at, length(payload) AS bytes FROM broker_messages
              WHERE queue = ?1 AND owner IS NULL AND visible_at <= CAST(unixepoch('subsec') * 1000 AS INTEGER)
              ORDER BY visible_at, id LIMIT ?3))
          WHERE total - bytes < ?5)
        RETURNING id, payload, headers, reply_to, correlation_id, message_id, returns, death_reason, death_queue";
    let rows = sqlx::query(claim)
        .bind(queue)
        .bind(owner)
        .bind(most)
        .bind(millis(LOCK))
        .bind(most_bytes)
        .fetch_all(connection)
        .await?;
    let mut claimed = rows.iter().map(claimed).collect::<sqlx::Result<Vec<_>>>()?;
    // RETURNING promises no order.
    claimed.sort_by_key(|claimed| claimed.id);
    Ok(claimed)
}

fn claimed(row: &SqliteRow) -> sqlx::Result<Claimed> {
    let headers: Headers = serde_json::from_str(row.try_get("headers")?)
        .map_err(|error| sqlx::Error::ColumnDecode { index: "headers".to_owned(), source: error.into() })?;
    let payload: Vec<u8> = row.try_get("payload")?;
    let message = Message {
        payload: payload.into(),
        headers,
        reply_to: row.try_get("reply_to")?,
        correlation_id: row.try_get("correlation_id")?,
        message_id: row.try_get("message_id")?,
    };
    let (reason, queue): (Option<String>, Option<String>) =
        (row.try_get("death_reason")?, row.try_get("death_queue")?);
    Ok(Claimed {
        id: row.try_get("id")?,
        message,
        redelivered: row.try_get::<i64, _>("returns")? > 0,
        broker_death: reason.zip(queue),
    })
}

/// Ends a message that `owner` still holds.
pub(super) async fn acknowledge(
    connection: &mut SqliteConnection,
    id: i64,
    owner: &str,
) -> sqlx::Result<bool> {
    let delete = "DELETE FROM broker_messages WHERE id = ?1 AND owner = ?2";
    let done = sqlx::query(delete).bind(id).bind(owner).execute(connection).await?;
    Ok(done.rows_affected() == 1)
}

/// Frees a message that `owner` still holds, or moves it to `dead` when it has come back too often.
pub(super) async fn give_back(
    connection: &mut SqliteConnection,
    id: i64,
    owner: &str,
    dead: &str,
) -> sqlx::Result<bool> {
    let update = "UPDATE broker_messages SET
          death_reason = CASE WHEN returns >= ?3 AND queue <> ?4 THEN 'delivery_limit' ELSE death_reason END,
          death_queue = CASE WHEN returns >= ?3 AND queue <> ?4 THEN queue ELSE death_queue END,
          queue = CASE WHEN returns >= ?3 THEN ?4 ELSE queue END,
          returns = CASE WHEN returns >= ?3 AND queue <> ?4 THEN 0 ELSE returns + 1 END,
          owner = NULL,
          visible_at = CAST(unixepoch('subsec') * 1000 AS INTEGER)
        WHERE id = ?1 AND owner = ?2";
    let done = sqlx::query(update)
        .bind(id)
        .bind(owner)
        .bind(i64::from(DELIVERY_LIMIT))
        .bind(dead)
        .execute(connection)
        .await?;
    Ok(done.rows_affected() == 1)
}

/// Expired claims, with their owners.
pub(super) async fn expired(connection: &mut SqliteConnection) -> sqlx::Result<Vec<(i64, String)>> {
    let select = "SELECT id, owner FROM broker_messages
        WHERE owner IS NOT NULL AND visible_at <= CAST(unixepoch('subsec') * 1000 AS INTEGER)";
    sqlx::query_as(select).fetch_all(connection).await
}

/// Renews these claims; `owners` is a JSON array.
pub(super) async fn renew(connection: &mut SqliteConnection, owners: &str) -> sqlx::Result<()> {
    let update = "UPDATE broker_messages SET visible_at = CAST(unixepoch('subsec') * 1000 AS INTEGER) + ?2
        WHERE owner IN (SELECT value FROM json_each(?1))";
    sqlx::query(update).bind(owners).bind(millis(LOCK)).execute(connection).await.map(|_done| ())
}

/// Time until the next message of this queue, or the end of a claim, is due; `None` if there is neither.
pub(super) async fn next_due(
    connection: &mut SqliteConnection,
    queue: &str,
) -> sqlx::Result<Option<Duration>> {
    let select = "SELECT MIN(due) - CAST(unixepoch('subsec') * 1000 AS INTEGER) FROM (
          SELECT MIN(visible_at) AS due FROM broker_messages WHERE queue = ?1 AND owner IS NULL
          UNION ALL
          SELECT MIN(visible_at) FROM broker_messages WHERE owner IS NOT NULL)";
    let wait: Option<i64> = sqlx::query_scalar(select).bind(queue).fetch_one(connection).await?;
    Ok(wait.map(|wait| Duration::from_millis(u64::try_from(wait).unwrap_or(0))))
}

/// How many messages are free and due; `None` when there is no such queue.
pub(super) async fn depth(connection: &mut SqliteConnection, queue: &str) -> sqlx::Result<Option<i64>> {
    let select = "SELECT (SELECT COUNT(*) FROM broker_messages WHERE queue = name AND owner IS NULL
            AND visible_at <= CAST(unixepoch('subsec') * 1000 AS INTEGER))
        FROM broker_queues WHERE name = ?1";
    sqlx::query_scalar(select).bind(queue).fetch_optional(connection).await
}

/// Changes when another connection has written to the file.
pub(super) async fn data_version(connection: &mut SqliteConnection) -> sqlx::Result<i64> {
    sqlx::query_scalar("PRAGMA data_version").fetch_one(connection).await
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX / 2)
}
