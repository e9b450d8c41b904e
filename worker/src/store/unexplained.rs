//! What a provider lists, and no call of ours accounts for.
//!
//! What must stay true: an id that was once recorded is accounted for as long as the provider can list it, whatever became of
//! its call; and what is left over means something only where no other submit of the lane is unresolved.

use std::collections::BTreeSet;
use std::time::Duration;

use super::calls::{id_list, millis};
use super::db::vals;
use super::types::digest;
use super::{Lease, Store, StoreError, again};
use retouch_shared::key::Digest32;

/// Longer than any provider lists a task.
const REMEMBERED: Duration = Duration::from_secs(48 * 60 * 60);

/// What is to be thought of ids that a provider has listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unexplained {
    /// Those that no call accounts for. Each is this call's, or somebody else's who uses the account.
    These(BTreeSet<String>),
    /// Nothing, as yet: what became of another submit of the lane is not known either.
    NotAlone,
}

impl Store {
    /// Which of `listed`, read from the provider before this, no call accounts for.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn unexplained(
        &self,
        lease: Lease,
        lane: &str,
        listed: &[String],
    ) -> Result<Unexplained, StoreError> {
        let ids = id_list(listed.iter().map(String::as_str));
        again!(async {
            let mut tx = self.db.begin().await?;
            // First: whoever is no longer unresolved after this has its id among the known ones.
            if self.unresolved(&mut *tx, lane, lease.edit_key).await? > 0 {
                return Ok(Unexplained::NotAlone);
            }
            let mut known = BTreeSet::new();
            for row in tx.rows(self.db.sql().known_tasks, vals![&ids]).await? {
                known.insert(digest(row.bytes(0)?)?);
            }
            let unknown = listed.iter().filter(|id| !known.contains(&Digest32::of(id.as_bytes())));
            Ok(Unexplained::These(unknown.cloned().collect()))
        })
    }

    /// From now on these are accounted for: they were looked at, and are nobody's.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn explain(&self, ids: &BTreeSet<String>) -> Result<(), StoreError> {
        let ids = id_list(ids.iter().map(String::as_str));
        again!(async {
            let mut connection = self.db.plain().await?;
            connection.run(self.db.sql().remember_tasks, vals![&ids]).await?;
            Ok(())
        })
    }

    /// Drops what no provider lists any more; says how many.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn forget_explained(&self) -> Result<u64, StoreError> {
        again!(async {
            let mut connection = self.db.plain().await?;
            Ok(connection.run(self.db.sql().forget_tasks, vals![millis(REMEMBERED)]).await?)
        })
    }
}
