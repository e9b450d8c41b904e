//! Which installation this database is: an id of its own, which its namespace at the broker is bound to.
//!
//! What must stay true: a database has one id, however many processes ask at once; a restored backup has
//! that of its database, and so has a copy until it is given another.

use super::db::vals;
use super::{Store, StoreError, again};

pub(super) struct InstallationStatements {
    pub(super) find: &'static str,
    pub(super) make: &'static str,
    pub(super) renew: &'static str,
}

impl Store {
    /// The id; none before a worker or an edit has been here.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn find_installation(&self) -> Result<Option<String>, StoreError> {
        let mut connection = self.db.plain().await?;
        let rows = connection.rows(self.db.sql().installation.find, vals![]).await?;
        rows.first().map(|row| row.text(0)).transpose().map_err(Into::into)
    }

    /// The id, made where there is none yet.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn installation(&self) -> Result<String, StoreError> {
        if let Some(id) = self.find_installation().await? {
            return Ok(id);
        }
        self.write_installation(self.db.sql().installation.make).await?;
        let made = self.find_installation().await?;
        made.ok_or_else(|| StoreError::corrupt("the table installation is empty after it was written to"))
    }

    /// Gives a database that is a copy of another one an id of its own.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn renew_installation(&self) -> Result<String, StoreError> {
        self.write_installation(self.db.sql().installation.renew).await?;
        self.installation().await
    }

    async fn write_installation(&self, sql: &'static str) -> Result<(), StoreError> {
        // The end of a version 7 UUID is its random part. Short: a refusal of the broker has 255 bytes for
        // two of them.
        let id = uuid::Uuid::now_v7().simple().to_string().split_off(16);
        again!(async {
            let mut connection = self.db.plain().await?;
            connection.run(sql, vals![&id]).await?;
            Ok(())
        })
    }
}
