//! The promises of the project, each as a test with its name. Run them with `tests/run`.

// Helpers are test code too, but the linter recognises only functions marked `#[test]`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

/// The same promises on RabbitMQ with MariaDB and in one SQLite file with the embedded broker.
macro_rules! on_both {
    ($($test:ident;)*) => {
        mod on_servers {
            $(#[tokio::test]
            async fn $test() {
                super::$test(retouch_tests::site::Site::on_servers().await).await;
            })*
        }
        mod in_one_file {
            $(#[tokio::test]
            async fn $test() {
                super::$test(retouch_tests::site::Site::in_one_file().await).await;
            })*
        }
    };
}

mod answers;
mod bench;
mod blobs_s3;
mod broker_conformance;
mod broker_embedded;
mod broker_rabbitmq;
mod broker_supervise;
mod cache_forget;
mod cache_import;
mod cache_show;
mod cache_stats;
mod cache_trace;
mod cache_verify;
mod cache_why;
mod client;
mod dead_advice;
mod dead_retry;
mod dead_show;
mod doctor;
mod edit_bill;
mod edit_folders;
mod edit_foresee;
mod edit_lanes;
mod edit_memory;
mod edit_own;
mod edit_pictures;
mod edit_report;
mod edit_terminal;
mod edit_together;
mod edit_usage;
mod faults_blobs;
mod faults_broker;
mod faults_clock;
mod faults_database;
mod faults_provider;
mod faults_store;
mod flow_cancel;
mod flow_counts;
mod flow_editor;
mod flow_faults;
mod flow_hints;
mod flow_identity;
mod flow_messages;
mod flow_partial;
mod flow_poison;
mod flow_running;
mod flow_scale;
mod flow_shutdown;
mod harness;
mod health;
mod inputs;
mod installation;
mod kills;
mod load;
mod model;
mod money;
mod outages;
mod packaging;
mod paid_ambiguous;
mod paid_flow;
mod paid_lanes;
mod paid_rolling;
mod paid_scale;
mod paid_shutdown;
mod paid_unanswered;
mod producers;
mod results;
mod routes;
mod stand_in;
mod store_conformance;
mod store_connections;
mod surfaces_http;
mod surfaces_memory;
mod surfaces_secrets;
mod task_list;
mod tls;
mod top;
mod topology;
mod upgrades;
mod watch_files;
mod watch_health;
mod watch_log;
mod watch_metrics;
mod watch_traces;
