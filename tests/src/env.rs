//! x

/// Where the shared broker is: the default virtual host.
pub const AMQP_URL: &str = "RETOUCH_TEST_AMQP_URL";
/// Where the shared broker's management API is.
pub const RABBITMQ_HTTP_URL: &str = "RETOUCH_TEST_RABBITMQ_HTTP_URL";
/// Where the shared database server is: root, no database.
pub const MYSQL_URL: &str = "RETOUCH_TEST_MYSQL_URL";
