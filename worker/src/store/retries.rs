//! Sending letters again, and discarding them. A message is claimed, published and then noted as sent; a claim is a lease of
//! the database's clock, so whoever dies in between is followed by the next run.
//!
//! What must stay true: only what is open, or was left behind by a claim that ran out, can be claimed or discarded; taken up
//! again it is the same retry, with the same number, so that whatever fails by either copy opens the letter once.

use std::collections::BTreeMap;
use std::time::Duration;

use retouch_shared::key::Digest32;

use super::calls::millis;
use super::db::{Row, vals};
use super::letters::{IMAGES, LetterRef, Properties, blob, id_rows, properties};
use super::types::{ascii, digest};
use super::{DeadPayload, StepError, Store, StoreError, again};
use crate::failpoint::around;

/// A letter whose message is to be published again, by us alone until the claim runs out.
#[derive(Debug, Clone)]
pub struct ClaimedLetter {
    /// Which retry of which letter.
    pub retry: LetterRef,
    /// The queue it comes from.
    pub queue: String,
    /// Our headers, as they were.
    pub headers: BTreeMap<String, String>,
    /// Whom to answer.
    pub properties: Properties,
    /// The message; none where the row has lost it.
    pub payload: Option<DeadPayload>,
}

impl Store {
    /// open → retrying. Claims those of these letters that nobody is sending again; each counts one more retry, unless a claim
    /// before did. One that says which retry it is to be is only claimed for that one: what somebody else has sent meanwhile, and
    /// has failed again, is not sent once more by whoever saw it before.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn claim_letters(
        &self,
        wanted: &[LetterRef],
        owner: &str,
        lease_for: Duration,
    ) -> Result<Vec<ClaimedLetter>, StoreError> {
        around("claim_letters", async { again!(self.try_claim_letters(wanted, owner, lease_for)) }).await
    }

    async fn try_claim_letters(
        &self,
        wanted: &[LetterRef],
        owner: &str,
        lease_for: Duration,
    ) -> Result<Vec<ClaimedLetter>, StepError> {
        let sql = self.db.sql().letters;
        let mut tx = self.db.begin().await?;
        let numbers: BTreeMap<i64, Option<u32>> =
            wanted.iter().map(|letter| (letter.id, letter.retry)).collect();
        let ids: Vec<i64> = numbers.keys().copied().collect();
        let rows = tx.rows(sql.claimable, vals![&id_rows(&ids)]).await?;
        let mut claimed = rows.iter().map(claimed).collect::<Result<Vec<_>, _>>()?;
        claimed.retain(|letter| {
            let number = numbers.get(&letter.retry.id).copied().flatten();
            number.is_none() || number == letter.retry.retry
        });
        if claimed.is_empty() {
            return Ok(claimed);
        }
        let ids: Vec<i64> = claimed.iter().map(|letter| letter.retry.id).collect();
        let ids = id_rows(&ids);
        tx.run(sql.note_retries, vals![&ids]).await?;
        tx.run(sql.count_retries, vals![&ids]).await?;
        tx.run(sql.claim, vals![&ids, &ascii(owner, 64), millis(lease_for)]).await?;
        tx.commit().await?;
        Ok(claimed)
    }

    /// retrying → retried: their messages are confirmed. One that failed again meanwhile stays open.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn letters_sent(&self, ids: &[i64], owner: &str) -> Result<(), StoreError> {
        let sent = self.change_letters(self.db.sql().letters.sent, ids, Some(owner));
        around("letters_sent", sent).await.map(drop)
    }

    /// They may or may not have been published: whoever comes next takes them up at once.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn give_letters_back(&self, ids: &[i64], owner: &str) -> Result<(), StoreError> {
        self.change_letters(self.db.sql().letters.give_back, ids, Some(owner)).await.map(drop)
    }

    /// open → discarded; says how many were.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn discard_letters(&self, ids: &[i64]) -> Result<u64, StoreError> {
        self.change_letters(self.db.sql().letters.discard, ids, None).await
    }

    async fn change_letters(
        &self,
        sql: &'static str,
        ids: &[i64],
        owner: Option<&str>,
    ) -> Result<u64, StoreError> {
        let ids = id_rows(ids);
        let owner = owner.map(|owner| ascii(owner, 64));
        again!(async {
            let mut connection = self.db.plain().await?;
            let changed = match &owner {
                Some(owner) => connection.run(sql, vals![&ids, owner]).await?,
                None => connection.run(sql, vals![&ids]).await?,
            };
            Ok(changed)
        })
    }

    /// Whether what this retry was for is still to be done: `false` when it has failed again.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn retry_goes_on(&self, retry: LetterRef) -> Result<bool, StoreError> {
        let mut connection = self.db.plain().await?;
        let number = i64::from(retry.retry.unwrap_or_default());
        let rows = connection.rows(self.db.sql().letters.of_retry, vals![retry.id, number]).await?;
        Ok(!rows.is_empty())
    }
}

fn claimed(row: &Row) -> Result<ClaimedLetter, StoreError> {
    let retries = u32::try_from(row.int(6)?).unwrap_or_default();
    let number = if row.int(7)? == 1 { retries + 1 } else { retries };
    let inline = row.opt_bytes(4)?.map(|bytes| DeadPayload::Inline(bytes.into()));
    let mut headers: BTreeMap<String, String> =
        serde_json::from_str(&row.text(2)?).map_err(StoreError::corrupt)?;
    // Of a task's images, written before they were named: all that have failed.
    let of_images = row.opt_text(9)?.map(|task| Digest32::of(format!("task\n{task}").as_bytes()));
    if of_images == Some(digest(row.bytes(8)?)?) {
        headers.entry(IMAGES.to_owned()).or_default();
    }
    Ok(ClaimedLetter {
        retry: LetterRef { id: row.int(0)?, retry: Some(number) },
        queue: row.text(1)?,
        headers,
        properties: properties(row.opt_text(3)?.as_deref())?,
        payload: blob(row.opt_text(5)?.as_deref())?.map(DeadPayload::Blob).or(inline),
    })
}
