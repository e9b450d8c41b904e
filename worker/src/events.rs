//! Events: publishes to producers how their tasks ended. At least once: the sweep repeats unconfirmed ones.

use crate::app::App;
use crate::broker::{BrokerError, Destination, Message};
use crate::failpoint::around;
use crate::store::TaskRecord;
use crate::trace::{self, TraceContext};

/// Publishes the event of an ended task to the events exchange and to its `reply_to`; does nothing for one that has
/// not ended. An unconfirmed event stays due, and the sweep sends it again.
pub(crate) async fn publish(app: &App, task: &TaskRecord) {
    if let Err(error) = around("publish_event", try_publish(app, task)).await {
        tracing::warn!(task_id = task.task_id, error = %format!("{error:#}"), "the event stays due; the sweep will send it again");
    }
}

async fn try_publish(app: &App, task: &TaskRecord) -> anyhow::Result<()> {
    let Some(event) = task.event(|reference| app.resolve(reference)) else { return Ok(()) };
    let mut message = Message::new(serde_json::to_vec(&event)?);
    message.message_id = Some(event.event_id.to_string());
    message.correlation_id.clone_from(&task.correlation_id);
    trace::stamp(&mut message.headers, task.trace.as_ref());
    app.broker.publish(Destination::Event(event.routing_key()), message.clone()).await?;
    if let Some(reply_to) = &task.reply_to {
        match app.broker.publish(Destination::Reply(reply_to.clone()), message).await {
            // The reply queue is gone; the events exchange has the event.
            Err(BrokerError::NoSuchQueue(queue)) => {
                tracing::debug!(task_id = task.task_id, queue, "the reply queue is gone");
            }
            other => other?,
        }
    }
    app.store.event_sent(&task.task_id, task.status, task.failed).await?;
    let trace_id = task.trace.as_ref().map(TraceContext::trace_id);
    let status = task.status.as_str();
    tracing::info!(task_id = task.task_id, trace_id, status, "event sent");
    Ok(())
}
