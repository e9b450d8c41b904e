"""The same body as a Dramatiq actor."""

import os

import dramatiq
from dramatiq.brokers.rabbitmq import RabbitmqBroker

import classic

dramatiq.set_broker(RabbitmqBroker(url=os.environ["AMQP_URL"]))


@dramatiq.actor(actor_name="edit", queue_name=os.environ["BENCH_QUEUE"].replace(".", "_"))
def edit(task):
    classic.edit(task)
