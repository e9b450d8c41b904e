"""The same body as a Celery task, acknowledged late so that a worker that dies loses nothing."""

import os

from celery import Celery

import classic

app = Celery("bench", broker=os.environ["AMQP_URL"])
app.conf.update(
    task_default_queue=os.environ["BENCH_QUEUE"],
    task_acks_late=True,
    task_ignore_result=True,
    broker_connection_retry_on_startup=True,
)


@app.task(name="edit")
def edit(task):
    classic.edit(task)
