//! t
#[test] fn x() { println!("{:?}", std::env::var("RETOUCH_TEST_AMQP_URL")); }
