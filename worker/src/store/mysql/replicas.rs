//! Replicas, on MySQL and MariaDB.

use crate::store::replicas::ReplicaStatements;

pub(super) static REPLICAS: ReplicaStatements = ReplicaStatements {
    report: "INSERT INTO replicas (owner, name, version, doing, started_at, seen_at) VALUES (?, ?, ?, ?, UTC_TIMESTAMP(3), UTC_TIMESTAMP(3)) \
        ON DUPLICATE KEY UPDATE doing = VALUES(doing), seen_at = VALUES(seen_at)",
    remove: "DELETE FROM replicas WHERE owner = ?",
    alive: "SELECT owner, name, version, doing, CAST(TIMESTAMPDIFF(MICROSECOND, started_at, UTC_TIMESTAMP(3)) DIV 1000 AS SIGNED), \
            CAST(TIMESTAMPDIFF(MICROSECOND, seen_at, UTC_TIMESTAMP(3)) DIV 1000 AS SIGNED) \
        FROM replicas WHERE seen_at > UTC_TIMESTAMP(3) - INTERVAL ? * 1000 MICROSECOND ORDER BY started_at, owner",
    forget: "DELETE FROM replicas WHERE seen_at < UTC_TIMESTAMP(3) - INTERVAL ? * 1000 MICROSECOND",
};
