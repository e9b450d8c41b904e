//! Replicas, on SQLite.

use crate::store::replicas::ReplicaStatements;

pub(super) static REPLICAS: ReplicaStatements = ReplicaStatements {
    report: "INSERT INTO replicas (owner, name, version, doing, started_at, seen_at) \
        VALUES (?, ?, ?, ?, strftime('%Y-%m-%d %H:%M:%f', 'now'), strftime('%Y-%m-%d %H:%M:%f', 'now')) \
        ON CONFLICT (owner) DO UPDATE SET doing = excluded.doing, seen_at = excluded.seen_at",
    remove: "DELETE FROM replicas WHERE owner = ?",
    alive: "SELECT owner, name, version, doing, CAST((unixepoch('now', 'subsec') - unixepoch(started_at, 'subsec')) * 1000 AS INTEGER), \
            CAST((unixepoch('now', 'subsec') - unixepoch(seen_at, 'subsec')) * 1000 AS INTEGER) \
        FROM replicas WHERE seen_at > strftime('%Y-%m-%d %H:%M:%f', 'now', (? / -1000.0) || ' seconds') ORDER BY started_at, owner",
    forget: "DELETE FROM replicas WHERE seen_at < strftime('%Y-%m-%d %H:%M:%f', 'now', (? / -1000.0) || ' seconds')",
};
