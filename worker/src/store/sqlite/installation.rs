//! Which installation it is, on SQLite.

use crate::store::installation::InstallationStatements;

pub(super) static INSTALLATION: InstallationStatements = InstallationStatements {
    find: "SELECT id FROM installation WHERE only_row = 1",
    // Who comes second changes nothing.
    make: "INSERT INTO installation (only_row, id, created_at) VALUES (1, ?, strftime('%Y-%m-%d %H:%M:%f', 'now')) \
        ON CONFLICT (only_row) DO NOTHING",
    renew: "INSERT INTO installation (only_row, id, created_at) VALUES (1, ?, strftime('%Y-%m-%d %H:%M:%f', 'now')) \
        ON CONFLICT (only_row) DO UPDATE SET id = excluded.id, created_at = excluded.created_at",
};
