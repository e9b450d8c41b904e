//! The producer client: publish tasks with confirms, wait for their events.
