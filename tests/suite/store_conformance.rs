//! The promises of the store, each checked for every database.

/// Makes a test of each promise for each database: `async fn promise(db: Fixture)`.
macro_rules! promises {
    ($($promise:ident),* $(,)?) => {
        promises!(@database mariadb, $($promise),*);
        promises!(@database sqlite, $($promise),*);
    };
    (@database $database:ident, $($promise:ident),*) => {
        mod $database {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $promise() {
                super::$promise($crate::store_conformance::fixture::Fixture::$database().await).await;
            })*
        }
    };
}

mod answers;
mod batch;
mod cache_view;
mod calls;
mod cancels;
mod commands;
mod dead;
mod dropping;
mod edits;
mod evicting;
mod fixture;
mod forgetting;
mod imports;
mod installation;
mod lanes;
mod outage;
mod overview;
mod paid_results;
mod races;
mod readings;
mod replicas;
mod retries;
mod schema;
mod spending;
mod sql_in_one_place;
mod sweep;
mod tasks;
mod unexplained;
