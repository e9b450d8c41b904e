//! Dead letters: kept once, read in groups, one by one, and forgotten when a person has decided about them
//! long ago.
//!
//! What must stay true: the same failure is one row; an edit that fails for the reason of its open letter is
//! in that letter; what fails again after a retry is the same row again, open; an open letter is never
//! deleted. Nothing here waits for a letter: its row is locked after calls, lanes and tasks, before cache
//! rows.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use chrono::{DateTime, Utc};
use retouch_shared::key::{Digest32, EditKey};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::calls::millis;
use super::db::{Row, Tx, Val, json_rows, vals};
use super::grouping::grouped;
use super::types::{ascii, clip, digest, time};
use super::{DeadLetter, DeadPayload, KeptAnswer, StepError, Store, StoreError, again};

/// The tasks that waited for an edit, in the headers of its letter: ids with commas between.
pub const TASKS: &str = "x-retouch-tasks";
/// The images that failed at intake, in the headers of their letter: positions with commas between.
pub const IMAGES: &str = "x-retouch-images";
/// Tasks that one letter names, as far as failures of its edit join it later.
const MOST_TASKS: usize = 1000;
/// Letters that are given a group at a time.
const GROUP_ROWS: u32 = 1000;

/// A retry of a letter. Whatever fails by it opens that letter again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LetterRef {
    /// The letter.
    pub id: i64,
    /// Which retry, from 1; none for the last one.
    pub retry: Option<u32>,
}

impl std::fmt::Display for LetterRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.id, self.retry.unwrap_or_default())
    }
}

impl LetterRef {
    /// As a header says it; `None` for what is no reference.
    pub fn parse(text: &str) -> Option<Self> {
        let (id, retry) = text.split_once('.')?;
        Some(Self { id: id.parse().ok()?, retry: Some(retry.parse().ok()?) })
    }
}

/// Whom to answer about a message.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Properties {
    /// A queue's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply_to: Option<String>,
    /// Returned with the reply.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub correlation_id: Option<String>,
}

/// What became of a letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LetterState {
    /// Nobody has decided about it.
    Open,
    /// Somebody is sending it again, or died doing so.
    Retrying,
    /// Sent again.
    Retried,
    /// Not wanted any more.
    Discarded,
}

impl LetterState {
    /// Every state.
    pub const ALL: [Self; 4] = [Self::Open, Self::Retrying, Self::Retried, Self::Discarded];

    /// Whether somebody has decided about it.
    pub const fn is_decided(self) -> bool {
        matches!(self, Self::Retried | Self::Discarded)
    }

    /// The word in the table.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Retrying => "retrying",
            Self::Retried => "retried",
            Self::Discarded => "discarded",
        }
    }

    fn parse(text: &str) -> Result<Self, StoreError> {
        let found = Self::ALL.into_iter().find(|state| state.as_str() == text);
        found.ok_or_else(|| StoreError::Corrupt(format!("unknown state of a dead letter {text:?}")))
    }
}

/// From when on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Since {
    /// So long before the database's now.
    Ago(Duration),
    /// This moment.
    At(DateTime<Utc>),
}

/// Which letters. What is none does not matter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LetterFilter {
    /// In one of these states.
    pub states: Vec<LetterState>,
    /// The reason code.
    pub reason: Option<String>,
    /// Of the group of this message.
    pub group: Option<String>,
    /// The operation.
    pub edit_type: Option<String>,
    /// That failed since.
    pub since: Option<Since>,
    /// That concern this task.
    pub task: Option<String>,
}

impl LetterFilter {
    /// Every letter in one of these states.
    pub fn of(states: &[LetterState]) -> Self {
        Self { states: states.to_vec(), reason: None, group: None, edit_type: None, since: None, task: None }
    }

    /// A value that no column of the table can hold would be read as no filter at all: it becomes one that
    /// nothing matches.
    fn to_json(&self) -> String {
        let word = |word: &Option<String>, most| {
            let fits =
                |word: &String| if ascii(word, most) == *word { word.clone() } else { "\u{1}".to_owned() };
            word.as_ref().map(fits)
        };
        let (ago, since) = match self.since {
            None => (None, None),
            Some(Since::Ago(ago)) => (Some(millis(ago)), None),
            Some(Since::At(at)) => (None, Some(at.format("%Y-%m-%d %H:%M:%S%.3f").to_string())),
        };
        let states: Vec<_> = self.states.iter().map(|state| state.as_str()).collect();
        let mut filter = json!({
            "states": states, "reason": word(&self.reason, 64), "group": self.group.as_deref().map(grouped),
            "edit_type": word(&self.edit_type, 32), "ago_ms": ago, "since": since, "task": word(&self.task, 64).map(|task| task.replace(',', "\u{1}")),
        });
        super::db::strip_nulls(&mut filter);
        filter.to_string()
    }
}

/// Letters of one cause.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LetterGroup {
    /// The reason code.
    pub reason: String,
    /// What their messages have in common.
    pub message: String,
    /// How many.
    pub count: u64,
    /// When the first of them failed first.
    pub first_at: DateTime<Utc>,
    /// When the last one failed.
    pub last_at: DateTime<Utc>,
    /// The newest of them.
    pub sample_id: i64,
    /// How many failed again after a retry.
    pub failed_again: u64,
}

/// A letter, without its payload.
#[derive(Debug, Clone)]
pub struct Letter {
    /// Its number.
    pub id: i64,
    /// The queue it comes from, without the namespace where we put it there.
    pub queue: String,
    /// The reason code.
    pub reason: String,
    /// For people.
    pub message: String,
    /// See [`LetterGroup::message`].
    pub group: String,
    /// Our headers.
    pub headers: BTreeMap<String, String>,
    /// Tries before it died last.
    pub attempts: u32,
    /// Times it was sent again.
    pub retries: u32,
    /// Where known.
    pub task_id: Option<String>,
    /// Where known.
    pub edit_key: Option<EditKey>,
    /// Where known.
    pub edit_type: Option<String>,
    /// What became of it.
    pub state: LetterState,
    /// When it failed first.
    pub first_at: DateTime<Utc>,
    /// When it failed last.
    pub last_at: DateTime<Utc>,
    /// When somebody decided about it.
    pub decided_at: Option<DateTime<Utc>>,
    /// Where a large payload is.
    pub payload_blob: Option<Digest32>,
    /// What was paid for and could not be used.
    pub kept: Option<KeptAnswer>,
    /// Whom to answer.
    pub properties: Properties,
    /// What makes it one row.
    pub letter_key: Digest32,
    /// Whether somebody is sending it again right now.
    pub held: bool,
}

impl Letter {
    /// Which retry the next one is; the one that is under way, while one is.
    pub fn next_retry(&self) -> LetterRef {
        let more = u32::from(self.state != LetterState::Retrying);
        LetterRef { id: self.id, retry: Some(self.retries + more) }
    }

    /// The tasks that it concerns.
    pub fn tasks(&self) -> Vec<&str> {
        match self.headers.get(TASKS) {
            Some(tasks) => tasks.split(',').filter(|task| !task.is_empty()).collect(),
            None => self.task_id.as_deref().into_iter().collect(),
        }
    }

    /// What the letter says of itself, as one failure among those before it.
    fn from_row(row: &Row) -> Result<Self, StoreError> {
        let count = |column| Ok::<_, StoreError>(u32::try_from(row.int(column)?).unwrap_or_default());
        Ok(Self {
            id: row.int(0)?,
            queue: row.text(1)?,
            reason: row.text(2)?,
            message: row.text(3)?,
            group: row.text(4)?,
            headers: serde_json::from_str(&row.text(5)?).map_err(StoreError::corrupt)?,
            attempts: count(6)?,
            retries: count(7)?,
            task_id: row.opt_text(8)?,
            edit_key: row.opt_bytes(9)?.map(digest).transpose()?,
            edit_type: row.opt_text(10)?,
            state: LetterState::parse(&row.text(11)?)?,
            first_at: time(&row.text(12)?)?,
            last_at: time(&row.text(13)?)?,
            decided_at: row.opt_text(14)?.as_deref().map(time).transpose()?,
            payload_blob: blob(row.opt_text(15)?.as_deref())?,
            properties: properties(row.opt_text(16)?.as_deref())?,
            letter_key: digest(row.bytes(17)?)?,
            held: row.int(18)? != 0,
            kept: kept(row)?,
        })
    }
}

pub(super) fn blob(text: Option<&str>) -> Result<Option<Digest32>, StoreError> {
    text.map(super::types::hex_digest).transpose()
}

fn kept(row: &Row) -> Result<Option<KeptAnswer>, StoreError> {
    let Some(hash) = blob(row.opt_text(19)?.as_deref())? else { return Ok(None) };
    Ok(Some(KeptAnswer { hash, content_type: row.opt_text(20)?.unwrap_or_default() }))
}

pub(super) fn properties(text: Option<&str>) -> Result<Properties, StoreError> {
    let read = |text: &str| serde_json::from_str(text).map_err(StoreError::corrupt);
    text.map_or(Ok(Properties::default()), read)
}

/// A failure that was retried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PastFailure {
    /// Which retry, from 1.
    pub number: u32,
    /// When it failed.
    pub failed_at: DateTime<Utc>,
    /// The reason code.
    pub reason: String,
    /// For people.
    pub message: String,
    /// Tries before it died.
    pub attempts: u32,
    /// When it was sent again.
    pub retried_at: DateTime<Utc>,
}

pub(super) fn id_rows(ids: &[i64]) -> String {
    json!(ids).to_string()
}

impl Store {
    /// Keeps a dead letter; the same one twice is kept once.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn archive(&self, letter: &DeadLetter) -> Result<(), StoreError> {
        again!(async {
            let mut connection = self.db.plain().await?;
            self.insert_dead_in(&mut *connection, letter).await
        })
    }

    /// As a step of a transaction. What failed again by a retry opens that retry's letter.
    pub(super) async fn insert_dead_in(&self, tx: &mut dyn Tx, letter: &DeadLetter) -> Result<(), StepError> {
        let sql = self.db.sql().letters;
        // Whatever came from outside must not make keeping it fail.
        let (queue, reason) = (ascii(&letter.queue, 128), ascii(&letter.reason, 64));
        let task_id = letter.task_id.as_deref().filter(|id| ascii(id, 64) == **id);
        let edit_type = letter.edit_type.as_deref().filter(|name| ascii(name, 32) == **name);
        let headers = json!(letter.headers).to_string();
        let properties = json!(letter.properties).to_string();
        let properties = (letter.properties != Properties::default()).then_some(properties.as_str());
        let (inline, blob) = match &letter.payload {
            DeadPayload::Inline(bytes) => (Some(&bytes[..]), None),
            DeadPayload::Blob(hash) => (None, Some(hash.to_hex())),
        };
        let message = clip(&letter.message);
        let group = grouped(message);
        let kept_hash = letter.kept.as_ref().map(|kept| kept.hash.to_hex());
        let kept_type = letter.kept.as_ref().map(|kept| kept.content_type.as_str());
        let body: [Val<'_>; 10] = [
            (&queue).into(),
            (&reason).into(),
            message.into(),
            (&group).into(),
            Val::OptBytes(inline),
            Val::OptText(blob.as_deref()),
            Val::OptText(kept_hash.as_deref()),
            Val::OptText(kept_type),
            (&headers).into(),
            Val::OptText(properties),
        ];
        let known: [Val<'_>; 4] = [
            letter.attempts.into(),
            Val::OptText(task_id),
            Val::OptBytes(letter.edit_key.as_ref().map(|key| &key.as_bytes()[..])),
            Val::OptText(edit_type),
        ];
        if let Some(LetterRef { id, retry }) = letter.again {
            let values = [&body[..], &known, vals![id, retry.map(i64::from)]].concat();
            if tx.run(sql.fail_again, &values).await? > 0 {
                return Ok(());
            }
            // The same end of the same retry, told once more.
            if retry.is_some() && !tx.rows(sql.exists, vals![id]).await?.is_empty() {
                return Ok(());
            }
        }
        if self.joins_open_letter(tx, letter, &reason).await? {
            return Ok(());
        }
        let settled = i64::from(letter.settled);
        let values = [vals![letter.letter_key.as_bytes()], &body, &known, vals![settled, settled]].concat();
        tx.run(sql.insert, &values).await?;
        Ok(())
    }

    /// An edit that fails again for the same reason, while its letter waits for a decision, is one more
    /// occurrence of that letter: a retry begins its images again together with those of the letter.
    async fn joins_open_letter(
        &self,
        tx: &mut dyn Tx,
        letter: &DeadLetter,
        reason: &str,
    ) -> Result<bool, StepError> {
        let sql = self.db.sql().letters;
        let Some(edit_key) = letter.edit_key.filter(|_| !letter.settled) else { return Ok(false) };
        let rows = tx.rows(sql.open_of_edit, vals![edit_key.as_bytes(), reason]).await?;
        let Some(row) = rows.first() else { return Ok(false) };
        let (id, kept) = (row.int(0)?, blob(row.opt_text(2)?.as_deref())?);
        // Each letter names one blob of what was paid for and could not be used.
        if letter.kept.as_ref().is_some_and(|new| Some(new.hash) != kept) {
            return Ok(false);
        }
        let mut headers: BTreeMap<String, String> =
            serde_json::from_str(&row.text(1)?).map_err(StoreError::corrupt)?;
        let tasks = headers.entry(TASKS.to_owned()).or_default();
        let mut all: Vec<&str> = tasks.split(',').filter(|task| !task.is_empty()).collect();
        let new = letter.headers.get(TASKS).map(String::as_str).unwrap_or_default();
        all.extend(new.split(',').filter(|task| !task.is_empty()));
        if all.len() > MOST_TASKS {
            return Ok(false);
        }
        *tasks = all.join(",");
        let headers = json!(headers).to_string();
        Ok(tx.run(sql.join_open, vals![&headers, letter.attempts, id]).await? > 0)
    }

    /// Letters by their cause, the most frequent first.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn letter_groups(&self, filter: &LetterFilter) -> Result<Vec<LetterGroup>, StoreError> {
        self.group_letters(&filter.states).await?;
        let mut connection = self.db.plain().await?;
        let rows = connection.rows(self.db.sql().letters.groups, vals![&filter.to_json()]).await?;
        let count =
            |row: &Row, column| Ok::<_, StoreError>(u64::try_from(row.int(column)?).unwrap_or_default());
        let group = |row: &Row| {
            Ok(LetterGroup {
                reason: row.text(0)?,
                message: row.text(1)?,
                count: count(row, 2)?,
                first_at: time(&row.text(3)?)?,
                last_at: time(&row.text(4)?)?,
                sample_id: row.int(5)?,
                failed_again: count(row, 6)?,
            })
        };
        rows.iter().map(group).collect()
    }

    /// The ids of the letters, in the order in which they were written.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn letter_ids(&self, filter: &LetterFilter) -> Result<Vec<i64>, StoreError> {
        self.group_letters(&filter.states).await?;
        let mut connection = self.db.plain().await?;
        let rows = connection.rows(self.db.sql().letters.ids, vals![&filter.to_json()]).await?;
        Ok(rows.iter().map(|row| row.int(0)).collect::<Result<_, _>>()?)
    }

    /// These letters, those that are there, in this order.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn letters(&self, ids: &[i64]) -> Result<Vec<Letter>, StoreError> {
        let mut connection = self.db.plain().await?;
        let rows = connection.rows(self.db.sql().letters.by_ids, vals![&id_rows(ids)]).await?;
        rows.iter().map(Letter::from_row).collect()
    }

    /// The payloads of these letters, where they are in their rows.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn letter_payloads(&self, ids: &[i64]) -> Result<HashMap<i64, Vec<u8>>, StoreError> {
        let mut connection = self.db.plain().await?;
        let rows = connection.rows(self.db.sql().letters.payloads, vals![&id_rows(ids)]).await?;
        let mut payloads = HashMap::new();
        for row in rows {
            if let Some(payload) = row.opt_bytes(1)? {
                payloads.insert(row.int(0)?, payload);
            }
        }
        Ok(payloads)
    }

    /// The failures of a letter that were retried, the first one first.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn letter_history(&self, id: i64) -> Result<Vec<PastFailure>, StoreError> {
        let mut connection = self.db.plain().await?;
        let rows = connection.rows(self.db.sql().letters.history, vals![id]).await?;
        let past = |row: &Row| {
            Ok(PastFailure {
                number: u32::try_from(row.int(0)?).unwrap_or_default(),
                failed_at: time(&row.text(1)?)?,
                reason: row.text(2)?,
                message: row.text(3)?,
                attempts: u32::try_from(row.int(4)?).unwrap_or_default(),
                retried_at: time(&row.text(5)?)?,
            })
        };
        rows.iter().map(past).collect()
    }

    /// Gives a group to letters that have none: those that a program wrote which knew no groups.
    async fn group_letters(&self, states: &[LetterState]) -> Result<(), StoreError> {
        let sql = self.db.sql().letters;
        let states = json!(states.iter().map(|state| state.as_str()).collect::<Vec<_>>()).to_string();
        loop {
            let mut connection = self.db.plain().await?;
            let rows = connection.rows(sql.ungrouped, vals![&states, GROUP_ROWS]).await?;
            if rows.is_empty() {
                return Ok(());
            }
            let group = |row: &Row| Ok(json!({"id": row.int(0)?, "group": grouped(&row.text(1)?)}));
            let groups: Vec<Value> = rows.iter().map(group).collect::<Result<_, StoreError>>()?;
            drop(connection);
            again!(async {
                let mut connection = self.db.plain().await?;
                for rows in json_rows(groups.iter().cloned()) {
                    connection.run(sql.set_groups, vals![&rows]).await?;
                }
                Ok(())
            })?;
        }
    }

    /// Deletes letters that were retried or discarded so many days ago, and what is known of their retries;
    /// says how many.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn forget_letters(&self, days: u32, limit: u32) -> Result<u64, StoreError> {
        again!(self.try_forget_letters(days, limit))
    }

    async fn try_forget_letters(&self, days: u32, limit: u32) -> Result<u64, StepError> {
        let sql = self.db.sql().letters;
        let mut tx = self.db.begin().await?;
        let rows = tx.rows(sql.over, vals![days, limit]).await?;
        let ids = rows.iter().map(|row| row.int(0)).collect::<Result<Vec<_>, _>>()?;
        if ids.is_empty() {
            return Ok(0);
        }
        let ids = id_rows(&ids);
        tx.run(sql.forget_retries, vals![&ids]).await?;
        let forgotten = tx.run(sql.forget, vals![&ids]).await?;
        tx.commit().await?;
        Ok(forgotten)
    }
}
