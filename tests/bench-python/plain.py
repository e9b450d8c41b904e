"""The plain worker: pika, one message after the other, acknowledged when its task is in the table."""

import json
import os
import signal
import sys

import pika

from classic import edit


def work(channel, method, _properties, body):
    edit(json.loads(body))
    channel.basic_ack(method.delivery_tag)


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    connection = pika.BlockingConnection(pika.URLParameters(os.environ["AMQP_URL"]))
    channel = connection.channel()
    channel.basic_qos(prefetch_count=32)
    channel.basic_consume(os.environ["BENCH_QUEUE"], work)
    channel.start_consuming()


main()
