//! Which installation it is, on MySQL and MariaDB.

use crate::store::installation::InstallationStatements;

pub(super) static INSTALLATION: InstallationStatements = InstallationStatements {
    find: "SELECT id FROM installation WHERE only_row = 1",
    // Who comes second changes nothing.
    make: "INSERT INTO installation (only_row, id, created_at) VALUES (1, ?, UTC_TIMESTAMP(3)) \
        ON DUPLICATE KEY UPDATE id = installation.id",
    renew: "INSERT INTO installation (only_row, id, created_at) VALUES (1, ?, UTC_TIMESTAMP(3)) \
        ON DUPLICATE KEY UPDATE id = VALUES(id), created_at = VALUES(created_at)",
};
