//! A call's life, step by step. Every step is one committed statement or transaction, guarded by the fence:
//! a worker that lost its lease changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use retouch_shared::event::{AnswerSource, ImageError, ImageResult, ImageStatus, TaskStatus};
use retouch_shared::key::{Digest32, EditKey};
use serde_json::{Value, json};

use super::cache_view::key_version;
use super::db::{Row, Tx, Val, json_rows, strip_nulls, vals};
use super::lanes::STUCK;
use super::letters::TASKS;
use super::spending::{AMBIGUOUS, RESULT, UNWANTED};
use super::suspects::suspect_of_edit;
use super::types::{ascii, clip, hex_digest, image_result, time};
use super::{
    CachedResult, CallSpec, CallState, Claim, ClaimedCall, DeadLetter, DeadPayload, Finished, KeptAnswer,
    Lease, LetterRef, Money, Properties, StepError, Store, StoreError, StoredResult, TaskRecord,
    UNREADABLE_ANSWER, again,
};
use crate::failpoint::around;
use crate::metrics::count::{self, Answered};

/// How much longer than a lease the sweep waits before it looks after a call.
const WAKE_GRACE: Duration = Duration::from_secs(2);
/// The reason code of an edit whose result is no picture.
const BAD_RESULT: &str = "bad_result";
/// As much of a content type as its column holds.
const KEPT_TYPE_CHARS: usize = 128;

/// The reasons after which a call that was or may have been paid for is sent again only by a person's
/// decision: a retry of its dead letter.
pub const HELD_REASONS: [&str; 3] = ["ambiguous", "unreadable_answer", "bad_result"];

/// One wait of the call that is being finished.
pub(super) struct Wait {
    pub(super) task_id: String,
    pub(super) position: u32,
    joined: bool,
    /// What the call has spent, or perhaps spent, for nothing; on one wait of a call at most.
    lost_micros: i64,
    /// Its result was paid for, and counted as money for nothing, by an earlier task.
    paid_before: bool,
}

fn waits<'a>(rows: impl Iterator<Item = &'a Row>) -> Result<Vec<Wait>, StepError> {
    let wait = |row: &Row| {
        Ok(Wait {
            task_id: row.text(0)?,
            position: u32::try_from(row.int(1)?).unwrap_or_default(),
            joined: row.text(2)? == AnswerSource::Joined.as_str(),
            lost_micros: 0,
            paid_before: false,
        })
    };
    rows.map(wait).collect()
}

impl Store {
    /// Claims a call for `lease_for`. Whoever wins holds the only lease; what it may do follows from
    /// [`ClaimedCall::state`].
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn claim_call(
        &self,
        edit_key: EditKey,
        owner: &str,
        lease_for: Duration,
    ) -> Result<Claim, StoreError> {
        around("claim_call", async { again!(self.try_claim(edit_key, owner, lease_for, any_state)) }).await
    }

    /// As [`Store::claim_call`] of a call that is submitted, with the provider's id of it: it is polled on, and
    /// can be neither sent nor paid from there. `None`: it is in another state by now, or leased.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn claim_submitted(
        &self,
        edit_key: EditKey,
        owner: &str,
        lease_for: Duration,
    ) -> Result<Option<Box<ClaimedCall>>, StoreError> {
        let claim = async { again!(self.try_claim(edit_key, owner, lease_for, with_an_id)) };
        match around("claim_call", claim).await? {
            Claim::Won(call) => Ok(Some(call)),
            Claim::Held { .. } | Claim::Done => Ok(None),
        }
    }

    /// A call that `may` not be claimed is as good as done.
    async fn try_claim(
        &self,
        edit_key: EditKey,
        owner: &str,
        lease_for: Duration,
        may: fn(&ClaimedCall) -> bool,
    ) -> Result<Claim, StepError> {
        let sql = self.db.sql();
        let mut connection = self.db.plain().await?;
        let suspect = suspect_of_edit(edit_key);
        let values = vals![suspect.as_bytes(), edit_key.as_bytes()];
        let Some(row) = connection.rows(sql.read_call, values).await?.pop() else {
            return Ok(Claim::Done);
        };
        let mut call = claimed_call(edit_key, &row)?;
        let found = (call.state, call.lease.fence);
        if matches!(call.state, CallState::Done | CallState::Failed) || !may(&call) {
            return Ok(Claim::Done);
        }
        if row.int(20)? != 0 {
            let remaining = Duration::from_millis(u64::try_from(row.int(21)?).unwrap_or_default());
            return Ok(Claim::Held { remaining });
        }
        // Whoever gives a call up in an orderly way leaves no lease behind.
        call.deserted = matches!(call.state, CallState::Claimed | CallState::Submitting) || row.int(21)? < 0;
        call.starts = row.opt_int(31)?.map(|starts| u32::try_from(starts).unwrap_or_default());
        call.state = match call.state {
            CallState::Queued | CallState::Claimed => CallState::Claimed,
            // Its owner died between sending and committing the answer.
            CallState::Submitting | CallState::Ambiguous => CallState::Ambiguous,
            state @ (CallState::Submitted | CallState::Stored | CallState::Done | CallState::Failed) => state,
        };
        call.lease.fence += 1;
        let owner = ascii(owner, 64);
        let (old_state, old_fence) = found;
        let values = vals![
            call.state.as_str(),
            &owner,
            call.lease.fence,
            millis(lease_for),
            millis(lease_for + WAKE_GRACE),
            edit_key.as_bytes(),
            old_state.as_str(),
            old_fence
        ];
        // One statement that changes the row only as it was read takes no lock that anybody waits for.
        if connection.run(sql.claim_call, values).await? == 0 {
            return Err(StepError::Again("the call changed hands this moment".to_owned()));
        }
        Ok(Claim::Won(Box::new(call)))
    }

    /// Extends a lease. `false`: it is lost, stop working.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn renew_lease(&self, lease: Lease, lease_for: Duration) -> Result<bool, StoreError> {
        let values = [millis(lease_for).into(), millis(lease_for + WAKE_GRACE).into()];
        around("renew_lease", self.step(self.db.sql().renew_lease, &values, lease)).await
    }

    /// submitting or ambiguous → submitted, and claimed → submitted by an answer that was kept: the
    /// provider's id is safe; anyone may poll. From then on the id is accounted for, also when the call is
    /// queued anew and forgets it.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn record_submitted(&self, lease: Lease, provider_task_id: &str) -> Result<bool, StoreError> {
        around("record_submitted", async { again!(self.try_record(lease, provider_task_id)) }).await
    }

    async fn try_record(&self, lease: Lease, provider_task_id: &str) -> Result<bool, StepError> {
        let sql = self.db.sql();
        let mut tx = self.db.begin().await?;
        let values = vals![provider_task_id, lease.edit_key.as_bytes(), lease.fence];
        if tx.run(sql.record_submitted, values).await? == 0 {
            return Ok(false);
        }
        tx.run(sql.remember_tasks, vals![&id_list([provider_task_id])]).await?;
        tx.commit().await?;
        Ok(true)
    }

    /// submitting or submitted → stored, and claimed → stored by an answer that was kept: the result is safe
    /// in our blobs; anyone may finish. `ago` is when keeping it there began: where a blob of that name was
    /// deleted since, the result has to be kept again, see `dropped`.
    ///
    /// # Errors
    /// See [`StoreError`]; `Unavailable` where it has to be kept again.
    pub async fn record_stored(
        &self,
        lease: Lease,
        result: &StoredResult,
        ago: Duration,
    ) -> Result<bool, StoreError> {
        around("record_stored", async { again!(self.try_record_stored(lease, result, ago)) }).await
    }

    async fn try_record_stored(
        &self,
        lease: Lease,
        result: &StoredResult,
        ago: Duration,
    ) -> Result<bool, StepError> {
        let mut tx = self.db.begin().await?;
        if !self.store_in(&mut *tx, self.db.sql().record_stored, lease, result, ago).await? {
            return Ok(false);
        }
        tx.commit().await?;
        Ok(true)
    }

    /// Writes the result into the call's row by `sql`, which says what else becomes of it. `false`: the lease was lost.
    async fn store_in(
        &self,
        tx: &mut dyn Tx,
        sql: &'static str,
        lease: Lease,
        result: &StoredResult,
        ago: Duration,
    ) -> Result<bool, StepError> {
        let hash = result.hash.to_hex();
        let bytes = i64::try_from(result.bytes).unwrap_or(i64::MAX);
        let values = vals![
            &hash,
            &result.content_type,
            result.width,
            result.height,
            bytes,
            result.check.as_deref().map(clip),
            lease.edit_key.as_bytes(),
            lease.fence
        ];
        if tx.run(sql, values).await? == 0 {
            return Ok(false);
        }
        self.none_was_dropped(tx, &[result.hash].into(), ago).await?;
        Ok(true)
    }

    /// Back to queued, to be tried again after `delay`. `burns` says whether this try counts. What was sent and is not
    /// ambiguous is given back because the provider does not charge for it; but for a payment that was
    /// counted as lost and asked after again in vain: that one stays counted, and what is sent next is
    /// another.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn requeue_call(
        &self,
        lease: Lease,
        burns: bool,
        error: &str,
        delay: Duration,
    ) -> Result<bool, StoreError> {
        // The sweep comes well after the message that is on its way.
        let wake = millis(delay + self.patience);
        around("requeue_call", async { again!(self.try_requeue(lease, burns, error, wake)) }).await
    }

    async fn try_requeue(
        &self,
        lease: Lease,
        burns: bool,
        error: &str,
        wake: i64,
    ) -> Result<bool, StepError> {
        let mut tx = self.db.begin().await?;
        let Some(call) = self.locked_call(&mut *tx, lease).await? else { return Ok(false) };
        let sent = matches!(call.state, CallState::Submitting | CallState::Submitted);
        if sent && call.lost_as.is_none() {
            self.refund(&mut *tx, &call).await?;
        }
        let values = vals![i64::from(burns), clip(error), wake, lease.edit_key.as_bytes(), lease.fence];
        let changed = tx.run(self.db.sql().requeue_call, values).await?;
        tx.commit().await?;
        Ok(changed > 0)
    }

    /// Gives a submitted, ambiguous or stored call to whoever comes next, as it is. The sweep, which carries on such calls by
    /// itself, soon comes too: the call's message may lie behind those of calls that wait for the place that this one has on
    /// the lane.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn hand_over_call(
        &self,
        lease: Lease,
        error: Option<&str>,
        delay: Duration,
    ) -> Result<bool, StoreError> {
        let wake = millis(delay + self.patience / 6);
        let values = [error.map(clip).into(), wake.into()];
        around("hand_over_call", self.step(self.db.sql().hand_over_call, &values, lease)).await
    }

    /// The provider's work has ended, and its result is not at hand: the call takes no place on its lane from
    /// here on. `error` says why, without an address beyond `host`. `false`: it is not submitted, or the
    /// lease was lost.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn note_unfetched(&self, lease: Lease, host: &str, error: &str) -> Result<bool, StoreError> {
        let host = ascii(host, 255);
        let values = [Val::from(&host), clip(error).into()];
        self.step(self.db.sql().note_unfetched, &values, lease).await
    }

    /// submitting or submitted → ambiguous; `duplicate` when it is about to be sent once more and may be paid twice.
    /// Counted once for each time that it was sent, also when whoever counted dies before it is queued again: from then on the
    /// call has no time of its submit. A submit whose id the provider does not know has no answer any more.
    /// Returns how many of the call's submits have none; `None`: the lease was lost.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn count_ambiguous(
        &self,
        lease: Lease,
        duplicate: bool,
        error: &str,
    ) -> Result<Option<u32>, StoreError> {
        let counted = async { again!(self.try_count_ambiguous(lease, duplicate, error)) };
        around("count_ambiguous", counted).await
    }

    async fn try_count_ambiguous(
        &self,
        lease: Lease,
        duplicate: bool,
        error: &str,
    ) -> Result<Option<u32>, StepError> {
        let duplicate = i64::from(duplicate);
        let mut tx = self.db.begin().await?;
        if self.locked_call(&mut *tx, lease).await?.is_none() {
            return Ok(None);
        }
        if duplicate > 0 {
            self.spend_unanswered(&mut *tx, lease).await?;
        }
        let values =
            vals![duplicate, duplicate, duplicate, clip(error), lease.edit_key.as_bytes(), lease.fence];
        if tx.run(self.db.sql().count_ambiguous, values).await? == 0 {
            return Ok(None);
        }
        let call = self.locked_call(&mut *tx, lease).await?;
        tx.commit().await?;
        Ok(call.map(|call| call.unanswered))
    }

    /// The provider cannot say what became of a call that is in flight: it holds its place, and its lane says
    /// so. `None`: it can again.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn note_stuck(&self, lease: Lease, why: Option<&str>) -> Result<bool, StoreError> {
        let text = why.map(|why| format!("{STUCK}{why}"));
        let values = [Val::from(text.as_deref().map(clip)), i64::from(why.is_some()).into()];
        self.step(self.db.sql().note_stuck, &values, lease).await
    }

    /// One guarded statement: its own values, then the edit key and the fence. `false`: the guard did not hold.
    async fn step(&self, sql: &'static str, values: &[Val<'_>], lease: Lease) -> Result<bool, StoreError> {
        let mut values = values.to_vec();
        values.extend([Val::from(lease.edit_key.as_bytes()), Val::from(lease.fence)]);
        again!(async {
            let mut connection = self.db.plain().await?;
            Ok(connection.run(sql, &values).await? > 0)
        })
    }

    /// stored → done: the cache row, every waiting image and every task that ends by it, in one transaction.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn finish_edit(&self, lease: Lease, result_url: &str) -> Result<Finished, StoreError> {
        around("finish_edit", async { again!(self.try_finish(lease, result_url)) }).await
    }

    async fn try_finish(&self, lease: Lease, result_url: &str) -> Result<Finished, StepError> {
        let mut tx = self.db.begin().await?;
        let Some(call) = self.locked_call(&mut *tx, lease).await? else {
            return Ok(Finished::LostLease);
        };
        let (CallState::Stored, Some(stored)) = (call.state, &call.result) else {
            return Ok(Finished::LostLease);
        };
        let mut waits = self.waits_of(&mut *tx, lease.edit_key).await?;
        charge(&mut waits, call.lost_micros, call.lost_as.is_some());
        let (ended, answered) = self.answer(&mut *tx, &call.spec, &waits, stored, result_url).await?;
        self.close_call(&mut *tx, lease, CallState::Done, None, None, None).await?;
        let lost_as = call.lost_as.as_deref();
        let outcome = self.settle_money(&mut *tx, lease, &call.spec, &waits, lost_as).await?;
        tx.commit().await?;
        count::ended(&call.spec.model, &call.spec.price, outcome, answered, &ended);
        Ok(Finished::Ended(ended))
    }

    /// [`Store::record_stored`] and [`Store::finish_edit`] in one transaction: for a result that whoever comes next could have
    /// from the provider again, should this not be committed. `began` is when keeping it in our blobs began.
    ///
    /// # Errors
    /// See both.
    pub async fn store_and_finish(
        &self,
        lease: Lease,
        spec: &CallSpec,
        result: &StoredResult,
        began: Instant,
        result_url: &str,
    ) -> Result<Finished, StoreError> {
        let both = async { again!(self.try_store_and_finish(lease, spec, result, began, result_url)) };
        around("record_stored", around("finish_edit", both)).await
    }

    async fn try_store_and_finish(
        &self,
        lease: Lease,
        spec: &CallSpec,
        result: &StoredResult,
        began: Instant,
        result_url: &str,
    ) -> Result<Finished, StepError> {
        let sql = self.db.sql();
        let mut tx = self.db.begin().await?;
        // From here on the row is locked.
        if !self.store_in(&mut *tx, sql.store_and_close, lease, result, began.elapsed()).await? {
            return Ok(Finished::LostLease);
        }
        let rows = tx.rows(sql.price_and_waits, vals![lease.edit_key.as_bytes()]).await?;
        let row = rows.first().ok_or_else(|| StoreError::Corrupt("the call's row is missing".to_owned()))?;
        // What it cost is said when it is sent, which may be after the claim.
        let price = Money { micros: row.int(3)?, currency: row.text(4)? };
        let spec = CallSpec { price, ..spec.clone() };
        let mut waits = waits(rows.iter().filter(|row| !matches!(row.opt_text(0), Ok(None))))?;
        let lost_as = row.opt_text(6)?;
        charge(&mut waits, row.int(5)?, lost_as.is_some());
        let (ended, answered) = self.answer(&mut *tx, &spec, &waits, result, result_url).await?;
        let outcome = self.settle_money(&mut *tx, lease, &spec, &waits, lost_as.as_deref()).await?;
        tx.commit().await?;
        count::ended(&spec.model, &spec.price, outcome, answered, &ended);
        Ok(Finished::Ended(ended))
    }

    /// Writes the cache row, and the result into every image that waits for it. The call's row has it already.
    async fn answer(
        &self,
        tx: &mut dyn Tx,
        spec: &CallSpec,
        waits: &[Wait],
        stored: &StoredResult,
        result_url: &str,
    ) -> Result<(Vec<TaskRecord>, Answered), StepError> {
        let (sql, key) = (self.db.sql(), spec.edit_key);
        let result = CachedResult {
            edit_key: key,
            result_url: result_url.to_owned(),
            result_hash: Some(stored.hash),
            content_type: stored.content_type.clone(),
            width: stored.width,
            height: stored.height,
            bytes: stored.bytes,
            price: spec.price.clone(),
        };
        let answer = |task: &mut TaskRecord, wait: &Wait| answer(task, wait, spec, &result);
        let settled = self.settle_waits(tx, key, waits, answer).await?;
        // Served times: a row starts with the images that waited for it, one at least.
        let served = i64::try_from(waits.len()).unwrap_or(i64::MAX).max(1);
        tx.run(sql.upsert_cache, vals![result_url, served, key_version(spec), key.as_bytes()]).await?;
        tx.run(sql.forget.delete_gone, vals![key.as_bytes()]).await?;
        Ok(settled)
    }

    /// → failed: every waiting image gets the error, the dead letter is written, in one transaction. `charged` says whether the
    /// provider may have taken money for it; then it is held where the error is one of [`HELD_REASONS`].
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn fail_edit(
        &self,
        lease: Lease,
        error: &ImageError,
        charged: bool,
    ) -> Result<Finished, StoreError> {
        around("fail_edit", async { again!(self.try_fail(lease, error, charged, None)) }).await
    }

    /// As [`Store::fail_edit`], of what was paid for and could not be used, and was `kept` since `began`. Of
    /// an answer that could not be read the call itself knows: it is read again before the call is sent
    /// again, and sent only by a person's decision.
    ///
    /// # Errors
    /// See [`StoreError`]; `Unavailable` where it has to be kept again.
    pub async fn fail_edit_kept(
        &self,
        lease: Lease,
        error: &ImageError,
        kept: &KeptAnswer,
        began: Instant,
    ) -> Result<Finished, StoreError> {
        let kept = Some((kept, began));
        around("fail_edit", async { again!(self.try_fail(lease, error, true, kept)) }).await
    }

    async fn try_fail(
        &self,
        lease: Lease,
        error: &ImageError,
        charged: bool,
        kept: Option<(&KeptAnswer, Instant)>,
    ) -> Result<Finished, StepError> {
        let mut tx = self.db.begin().await?;
        let Some(call) = self.locked_call(&mut *tx, lease).await? else {
            return Ok(Finished::LostLease);
        };
        let mut waits = self.waits_of(&mut *tx, lease.edit_key).await?;
        let lost = charged.then(|| lost_by(&call, error)).flatten();
        let price = &call.spec.price;
        let free = !charged && matches!(call.state, CallState::Submitting | CallState::Submitted);
        // What was counted as lost, and the provider does not charge for after all.
        let back = call.lost_as.as_deref().filter(|_| free);
        let lost_micros = lost.map_or(0, |_| price.micros) - back.map_or(0, |_| price.micros);
        charge(&mut waits, call.lost_micros + lost_micros, false);
        if free {
            self.refund(&mut *tx, &call).await?;
        }
        if let Some(lost_as) = back {
            self.spend(&mut *tx, &call.spec, lost_as, -1).await?;
        }
        let fail = |task: &mut TaskRecord, wait: &Wait| fail(task, wait, error);
        let (ended, answered) = self.settle_waits(&mut *tx, lease.edit_key, &waits, fail).await?;
        let held = HELD_REASONS.into_iter().find(|reason| *reason == error.code);
        let held = held.filter(|_| charged && call.spec.price.micros > 0);
        let unread = kept.is_some() && error.code == UNREADABLE_ANSWER;
        if let Some((kept, _)) = kept.filter(|_| unread) {
            // What is read again and still cannot be read was counted when it came.
            let paid = i64::from(call.state == CallState::Submitting);
            let content_type: String = kept.content_type.chars().take(KEPT_TYPE_CHARS).collect();
            let (hash, key) = (kept.hash.to_hex(), lease.edit_key.as_bytes());
            let values = vals![&hash, &content_type, paid, key, lease.fence];
            tx.run(self.db.sql().keep_answer, values).await?;
        } else if call.answer.is_some() && (call.state != CallState::Claimed || error.code == BAD_RESULT) {
            // It was sent again since, and that has ended otherwise; or the answer was read, and led to
            // nothing.
            self.forget_answer(&mut *tx, lease).await?;
        }
        let lost_as = may_still_come(&call, error, lost, unread).filter(|_| !free);
        let said = Some(error.message.as_str());
        self.close_call(&mut *tx, lease, CallState::Failed, said, held, lost_as).await?;
        let mut letter = dead_letter(&call, &waits, error);
        letter.kept = kept.map(|(kept, _)| kept.clone());
        self.insert_dead_in(&mut *tx, &letter).await?;
        if let Some((kept, began)) = kept {
            self.none_was_dropped(&mut *tx, &[kept.hash].into(), began.elapsed()).await?;
        }
        if let Some(outcome) = lost {
            self.spend(&mut *tx, &call.spec, outcome, 1).await?;
        }
        tx.commit().await?;
        count::ended(&call.spec.model, price, lost, answered, &ended);
        Ok(Finished::Ended(ended))
    }

    /// The call, locked, if the lease still holds.
    pub(super) async fn locked_call(
        &self,
        tx: &mut dyn Tx,
        lease: Lease,
    ) -> Result<Option<ClaimedCall>, StepError> {
        let rows = tx.rows(self.db.sql().lock_call, vals![lease.edit_key.as_bytes()]).await?;
        let call = rows.first().map(|row| claimed_call(lease.edit_key, row)).transpose()?;
        Ok(call.filter(|call| {
            call.lease.fence == lease.fence && !matches!(call.state, CallState::Done | CallState::Failed)
        }))
    }

    pub(super) async fn waits_of(&self, tx: &mut dyn Tx, key: EditKey) -> Result<Vec<Wait>, StepError> {
        let rows = tx.rows(self.db.sql().waits_of, vals![key.as_bytes()]).await?;
        waits(rows.iter())
    }

    /// Fills in every waiting image, ends the tasks that have nothing left to wait for, deletes the waits.
    /// Returns the tasks that ended, and what was added to all of them.
    pub(super) async fn settle_waits(
        &self,
        tx: &mut dyn Tx,
        key: EditKey,
        waits: &[Wait],
        settle: impl Fn(&mut TaskRecord, &Wait) + Sync,
    ) -> Result<(Vec<TaskRecord>, Answered), StepError> {
        let sql = self.db.sql();
        if waits.is_empty() {
            return Ok((Vec::new(), Answered::default()));
        }
        // By task id: that is the order of the locks.
        let ids: BTreeSet<&str> = waits.iter().map(|wait| wait.task_id.as_str()).collect();
        let mut tasks = BTreeMap::new();
        let mut now = String::new();
        for row in tx.rows(sql.lock_tasks, vals![&json!(ids).to_string()]).await? {
            let task = TaskRecord::from_row(&row)?;
            tasks.insert(task.task_id.clone(), task);
            now = row.text(24)?;
        }
        let before = Answered::in_all(tasks.values());
        for wait in waits {
            if let Some(task) = tasks.get_mut(&wait.task_id) {
                settle(task, wait);
            }
        }
        let answered = Answered::in_all(tasks.values()).since(before);
        let mut rows = Vec::with_capacity(tasks.len());
        for task in tasks.values_mut() {
            rows.push(task_row(task, &now)?);
        }
        for rows in json_rows(rows.into_iter()) {
            tx.run(sql.update_tasks, vals![&rows, millis(self.patience)]).await?;
        }
        tx.run(sql.delete_waits, vals![key.as_bytes()]).await?;
        let ended = tasks.into_values().filter(|task| task.status.has_ended());
        Ok((ended.collect(), answered))
    }

    /// An answer that was kept has served, and its blob may go; what was paid for is not asked after again.
    async fn forget_answer(&self, tx: &mut dyn Tx, lease: Lease) -> Result<(), StepError> {
        tx.run(self.db.sql().forget_answer, vals![lease.edit_key.as_bytes(), lease.fence]).await?;
        Ok(())
    }

    /// Counts what a result bought. What came by a later look was counted as money for nothing before.
    /// Returns what is to be added to the metrics.
    async fn settle_money(
        &self,
        tx: &mut dyn Tx,
        lease: Lease,
        spec: &CallSpec,
        waits: &[Wait],
        lost_as: Option<&str>,
    ) -> Result<Option<&'static str>, StepError> {
        let outcome = bought(waits);
        if let Some(lost_as) = lost_as {
            self.forget_answer(tx, lease).await?;
            self.spend(tx, spec, lost_as, -1).await?;
        }
        self.spend(tx, spec, outcome, 1).await?;
        Ok(lost_as.is_none().then_some(outcome))
    }

    /// A call that has failed keeps what it was held for before, and the count of its submits without an
    /// answer.
    async fn close_call(
        &self,
        tx: &mut dyn Tx,
        lease: Lease,
        state: CallState,
        error: Option<&str>,
        held: Option<&str>,
        lost_as: Option<&str>,
    ) -> Result<(), StepError> {
        let done = i64::from(state == CallState::Done);
        let (said, key) = (error.map(clip), lease.edit_key.as_bytes());
        let values = vals![done, done, held, lost_as, state.as_str(), said, key, lease.fence];
        tx.run(self.db.sql().close_call, values).await?;
        Ok(())
    }
}

/// See [`Store::claim_call`].
fn any_state(_: &ClaimedCall) -> bool {
    true
}

/// See [`Store::claim_submitted`].
fn with_an_id(call: &ClaimedCall) -> bool {
    call.state == CallState::Submitted && call.provider_task_id.is_some()
}

/// Money that bought nothing stands on the image that started the call; a cancel passes that on to another
/// one. `paid_before`: the result came by a later look at what had been counted as money for nothing.
fn charge(waits: &mut [Wait], lost_micros: i64, paid_before: bool) {
    if let Some(starter) = waits.iter_mut().find(|wait| !wait.joined) {
        (starter.lost_micros, starter.paid_before) = (lost_micros, paid_before);
    }
}

/// What a result bought.
fn bought(waits: &[Wait]) -> &'static str {
    if waits.is_empty() { UNWANTED } else { RESULT }
}

/// What the money of a failed call bought; none where nothing is charged any more, or it was counted before.
fn lost_by<'a>(call: &ClaimedCall, error: &'a ImageError) -> Option<&'a str> {
    if call.lost_as.is_some() {
        return None;
    }
    match call.state {
        CallState::Submitting | CallState::Submitted | CallState::Stored => Some(&error.code),
        // Counted when it was decided that it is sent once more.
        CallState::Ambiguous if call.since_submit.is_zero() => None,
        CallState::Ambiguous => Some(AMBIGUOUS),
        CallState::Queued | CallState::Claimed | CallState::Done | CallState::Failed => None,
    }
}

/// The reason code under which the payment of a failed call is counted, where what it bought may still come:
/// from the provider, by the id, or from the answer that was kept.
fn may_still_come<'a>(
    call: &'a ClaimedCall,
    error: &'a ImageError,
    lost: Option<&'a str>,
    unread: bool,
) -> Option<&'a str> {
    let by_id =
        call.provider_task_id.is_some() && matches!(call.state, CallState::Submitted | CallState::Stored);
    match (&call.lost_as, call.state) {
        // An answer that was kept was read, and led to nothing.
        (Some(_), CallState::Claimed) if error.code == BAD_RESULT => None,
        (Some(before), _) => Some(before),
        (None, _) => lost.filter(|_| by_id || unread),
    }
}

/// The provider's ids as a JSON list of their digests: an id may be of any length and spelling.
pub(super) fn id_list<'a>(ids: impl IntoIterator<Item = &'a str>) -> String {
    let digests: BTreeSet<String> = ids.into_iter().map(|id| Digest32::of(id.as_bytes()).to_hex()).collect();
    json!(digests).to_string()
}

pub(super) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

fn answer(task: &mut TaskRecord, wait: &Wait, spec: &CallSpec, result: &CachedResult) {
    let source = if wait.joined { AnswerSource::Joined } else { AnswerSource::Paid };
    let image = image_result(wait.position, source, spec.image_hash, result);
    if !replace(task, image) {
        return;
    }
    if wait.joined {
        task.joined += 1;
        task.saved_micros += result.price.micros;
    } else {
        task.paid += 1;
        task.lost_micros += wait.lost_micros;
        if !wait.paid_before {
            task.paid_micros += result.price.micros;
        } else if task.lost_micros >= result.price.micros {
            // It was this task's money, and has bought the picture after all.
            task.lost_micros -= result.price.micros;
            task.paid_micros += result.price.micros;
        }
    }
}

fn fail(task: &mut TaskRecord, wait: &Wait, error: &ImageError) {
    let Some(waiting) = task.images.get(wait.position as usize).cloned() else {
        return;
    };
    let image = ImageResult { status: ImageStatus::Failed, error: Some(error.clone()), ..waiting };
    if replace(task, image) {
        task.failed += 1;
        // What is taken back may have been an earlier task's.
        task.lost_micros = (task.lost_micros + wait.lost_micros).max(0);
        task.error.get_or_insert_with(|| clip(&error.message).to_owned());
    }
}

/// Puts an image in its place; `false` where that place was not waiting, so that nothing is counted twice.
pub(super) fn replace(task: &mut TaskRecord, image: ImageResult) -> bool {
    match task.images.get_mut(image.position as usize) {
        Some(place) if place.status == ImageStatus::Waiting => {
            *place = image;
            true
        }
        _ => false,
    }
}

/// The task's new state, as a row for `update_tasks`; `now` is the database's, as `lock_tasks` tells it.
pub(super) fn task_row(task: &mut TaskRecord, now: &str) -> Result<Value, StoreError> {
    let answered = task.hit + task.joined + task.paid + task.failed;
    task.status = if answered >= task.total {
        TaskRecord::ended_status(task.total, task.failed)
    } else {
        TaskStatus::Processing
    };
    let ended_at = task.status.has_ended().then_some(now);
    task.completed_at = ended_at.map(time).transpose()?;
    let mut row = json!({
        "id": task.id, "status": task.status.as_str(), "joined": task.joined, "paid": task.paid, "failed": task.failed,
        "paid_micros": task.paid_micros, "saved_micros": task.saved_micros, "lost_micros": task.lost_micros, "results": json!(task.images).to_string(),
        "error": task.error, "ended_at": ended_at,
    });
    strip_nulls(&mut row);
    Ok(row)
}

fn dead_letter(call: &ClaimedCall, waits: &[Wait], error: &ImageError) -> DeadLetter {
    let key = call.lease.edit_key;
    let payload = json!({"v": 1, "edit_key": key}).to_string();
    let mut tasks: Vec<&str> = waits.iter().map(|wait| wait.task_id.as_str()).collect();
    tasks.dedup();
    DeadLetter {
        letter_key: Digest32::of(format!("edit\n{key}\n{}", call.lease.fence).as_bytes()),
        queue: format!("edits.{}", call.spec.lane),
        reason: error.code.clone(),
        message: error.message.clone(),
        payload: DeadPayload::Inline(payload.into()),
        kept: None,
        headers: [(TASKS.to_owned(), tasks.join(","))].into(),
        attempts: call.attempts + 1,
        task_id: tasks.first().map(|task| (*task).to_owned()),
        edit_key: Some(key),
        edit_type: Some(call.spec.edit_type.clone()),
        properties: Properties::default(),
        again: call.letter.map(|id| LetterRef { id, retry: None }),
        settled: false,
    }
}

fn kept_answer(row: &Row) -> Result<Option<KeptAnswer>, StoreError> {
    let Some(hash) = row.opt_text(26)? else { return Ok(None) };
    Ok(Some(KeptAnswer { hash: hex_digest(&hash)?, content_type: row.opt_text(27)?.unwrap_or_default() }))
}

fn claimed_call(edit_key: EditKey, row: &Row) -> Result<ClaimedCall, StoreError> {
    let pixels = |column| {
        Ok::<_, StoreError>(u32::try_from(row.opt_int(column)?.unwrap_or_default()).unwrap_or_default())
    };
    let spec = CallSpec {
        edit_key,
        image_hash: hex_digest(&row.text(0)?)?,
        edit_type: row.text(1)?,
        prompt: row.text(2)?,
        provider: row.text(3)?,
        model: row.text(4)?,
        params: row.text(5)?.parse().map_err(StoreError::corrupt)?,
        mask_hash: row.opt_text(6)?.as_deref().map(hex_digest).transpose()?,
        variant: row.opt_text(7)?,
        lane: row.text(8)?,
        price: Money { micros: row.int(9)?, currency: row.text(10)? },
    };
    let result = match row.opt_text(15)? {
        Some(hash) => Some(StoredResult {
            hash: hex_digest(&hash)?,
            content_type: row.opt_text(16)?.unwrap_or_default(),
            width: pixels(17)?,
            height: pixels(18)?,
            bytes: u64::try_from(row.opt_int(19)?.unwrap_or_default()).unwrap_or_default(),
            // On the row, where the cache's row takes it from; nothing else asks for it.
            check: None,
        }),
        None => None,
    };
    Ok(ClaimedCall {
        lease: Lease { edit_key, fence: row.int(13)? },
        spec,
        state: CallState::parse(&row.text(11)?)?,
        deserted: false,
        starts: None,
        attempts: u32::try_from(row.int(12)?).unwrap_or_default(),
        provider_task_id: row.opt_text(14)?,
        since_submit: Duration::from_millis(u64::try_from(row.int(22)?).unwrap_or_default()),
        result,
        letter: row.opt_int(23)?,
        unanswered: u32::try_from(row.int(24)?).unwrap_or_default(),
        held: row.opt_text(25)?,
        answer: kept_answer(row)?,
        ended: row.int(28)? != 0,
        lost_micros: row.int(29)?,
        lost_as: row.opt_text(30)?,
    })
}
