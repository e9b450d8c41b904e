//! TLS to the broker and to the database: it works with a configured authority, is refused with a message for
//! any other, and never falls back to plain text.

mod own_servers;

use retouch_tests::services::Certificates;
use retouch_tests::site::Site;

use own_servers::is_refused;

#[tokio::test]
async fn a_database_without_tls_is_refused_where_an_authority_is_named() {
    let ours = Certificates::new().unwrap();
    let site = Site::on_servers().await;
    let url = format!("{}?ssl-ca={}", site.env.mysql_url(), ours.ca().display());
    is_refused(site.worker().env("DATABASE_URL", url), &["DATABASE_URL", "does not support TLS"]).await;
}
