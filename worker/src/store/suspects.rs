//! Suspects: work that is begun again after a process died with it, counted until it ends. A start that was counted and
//! never ended is a process that died.

use retouch_shared::key::{Digest32, EditKey};

use super::db::vals;
use super::{Store, StoreError, again};

/// An edit, as a suspect.
pub(crate) fn suspect_of_edit(edit_key: EditKey) -> Digest32 {
    Digest32::of(&[&b"edits\n"[..], edit_key.as_bytes()].concat())
}

impl Store {
    /// How many starts of it never ended; `None` where it is no suspect. What is a day old is forgotten.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn suspect_starts(&self, suspect: Digest32) -> Result<Option<u32>, StoreError> {
        let mut connection = self.db.plain().await?;
        let rows = connection.rows(self.db.sql().suspect_starts, vals![suspect.as_bytes()]).await?;
        let starts = rows.first().map(|row| row.int(0)).transpose()?;
        Ok(starts.map(|starts| u32::try_from(starts).unwrap_or_default()))
    }

    /// It is begun: committed before whatever may kill the process.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn start_suspect(&self, suspect: Digest32) -> Result<(), StoreError> {
        self.change_suspect(self.db.sql().start_suspect, suspect).await
    }

    /// This start of it ended, to be tried again.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn end_suspect(&self, suspect: Digest32) -> Result<(), StoreError> {
        self.change_suspect(self.db.sql().end_suspect, suspect).await
    }

    /// It came to its end.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn clear_suspect(&self, suspect: Digest32) -> Result<(), StoreError> {
        self.change_suspect(self.db.sql().clear_suspect, suspect).await
    }

    /// Forgets those that no message came again for: what is a day old counts no more.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn forget_suspects(&self) -> Result<u64, StoreError> {
        again!(async {
            let mut connection = self.db.plain().await?;
            Ok(connection.run(self.db.sql().forget_suspects, vals![]).await?)
        })
    }

    async fn change_suspect(&self, sql: &'static str, suspect: Digest32) -> Result<(), StoreError> {
        again!(async {
            let mut connection = self.db.plain().await?;
            connection.run(sql, vals![suspect.as_bytes()]).await?;
            Ok(())
        })
    }
}
