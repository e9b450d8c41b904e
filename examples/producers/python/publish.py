#!/usr/bin/env python3
"""Publish one Retouch task to RabbitMQ and wait for its event.

The event goes to standard output as it was received, everything else to standard error.
Exit codes: 0 completed, 1 partial or failed, 2 usage, 3 could not connect, or no event in time.
The message contract is docs/contract.md.
"""

import argparse
import base64
import json
import os
import re
import sys
import time
import uuid

import pika
from pika import exceptions as amqp
from pika.adapters.utils.connection_workflow import AMQPConnectorException

DEFAULT_URL = "amqp://guest:guest@localhost:5672/%2F"
ROUTING_KEY = "tasks"
MAX_MESSAGE = 16 * 1024 * 1024
MAX_IMAGES = 64
CONNECT_SECONDS = 10

NO_WORKER = "Has a worker started with this namespace? It declares the exchange and its queues."

DONE, FAILED, USAGE, UNREACHABLE = 0, 1, 2, 3

# By content, as the worker does it: a file's name says nothing reliable.
SIGNATURES = [
    (re.compile(rb"\x89PNG\r\n\x1a\n"), "image/png"),
    (re.compile(rb"\xff\xd8\xff"), "image/jpeg"),
    (re.compile(rb"GIF8[79]a"), "image/gif"),
    (re.compile(rb"RIFF....WEBP", re.DOTALL), "image/webp"),
    (re.compile(rb"BM"), "image/bmp"),
    (re.compile(rb"II\*\x00|MM\x00\*"), "image/tiff"),
]


class Usage(Exception):
    """The caller asked for something that can't be sent."""


class Unreachable(Exception):
    """The broker, or the event, could not be reached."""


# ---- the message ------------------------------------------------------------------------------


def image(argument):
    """One entry of `images`: a URL, a blob the workers already have, or a file's bytes."""
    if re.match(r"https?://", argument, re.IGNORECASE):
        return {"url": argument}
    if argument.startswith("sha256:"):
        if not re.fullmatch(r"sha256:[0-9a-f]{64}", argument):
            raise Usage(f"{argument}: a blob is sha256: and 64 lower-case hex digits")
        return {"blob": argument}
    try:
        with open(argument, "rb") as file:
            content = file.read()
    except OSError as error:
        raise Usage(f"{argument}: {error.strerror}") from error
    mime = next((mime for start, mime in SIGNATURES if start.match(content)), None)
    if mime is None:
        raise Usage(f"{argument}: not a PNG, JPEG, GIF, WebP, BMP or TIFF picture")
    return {"data": f"data:{mime};base64,{base64.b64encode(content).decode('ascii')}"}


def no_constant(name):
    raise ValueError(name)  # NaN and Infinity are Python's, not JSON's


def params(arguments):
    """`K=V` pairs as an object; V is JSON, so that 7 and "7" stay two things."""
    found = {}
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if not (name and equals):
            raise Usage(f"--param {argument}: write NAME=JSON")
        if name in found:
            raise Usage(f"--param {name}: given twice")
        try:
            found[name] = json.loads(value, parse_constant=no_constant)
        except ValueError as error:
            raise Usage(f"--param {argument}: {value!r} is not JSON; a text needs quotes: '{name}=\"…\"'") from error
    return found


def message(options):
    if not 1 <= len(options.images) <= MAX_IMAGES:
        raise Usage(f"a task has 1 to {MAX_IMAGES} images, not {len(options.images)}")
    if not re.fullmatch(r"[A-Za-z0-9._:-]{1,64}", options.task_id):
        raise Usage(f"--task-id {options.task_id!r}: 1 to 64 of A-Z a-z 0-9 . _ : -")
    task = {"v": 1, "task_id": options.task_id, "edit_type": options.type, "prompt": options.prompt}
    if options.param:
        task["params"] = params(options.param)
    task["images"] = [image(argument) for argument in options.images]
    body = json.dumps(task, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
    if len(body) > MAX_MESSAGE:
        raise Usage(f"the message has {len(body)} bytes, more than {MAX_MESSAGE}: send big pictures by URL or blob")
    return body


# ---- the broker -------------------------------------------------------------------------------


def connection_parameters(url):
    try:
        if not url.startswith(("amqp://", "amqps://")):
            raise ValueError("scheme")
        parameters = pika.URLParameters(url)
    except (ValueError, TypeError) as error:
        raise Usage("--amqp-url: not an AMQP URL such as amqp://user:password@host:5672/vhost") from error
    parameters.connection_attempts = 1
    parameters.socket_timeout = CONNECT_SECONDS
    parameters.stack_timeout = CONNECT_SECONDS
    return parameters


def why(error):
    """pika nests the cause: find the innermost text, and never print the URL with its password."""
    while True:
        nested = [*error.args, *getattr(error, "exceptions", ()), getattr(error, "exception", None)]
        nested = [each for each in nested if isinstance(each, BaseException)]
        if not nested:
            return str(error).rstrip(".") or type(error).__name__
        error = nested[-1]


def connect(parameters):
    try:
        return pika.BlockingConnection(parameters)
    except (amqp.AMQPError, AMQPConnectorException, OSError) as error:
        raise Unreachable(f"no connection to {parameters.host}:{parameters.port}: {why(error)}") from error


def publish(channel, namespace, properties, body):
    """Returns when the broker has the message on a queue: confirmed, and not handed back."""
    try:
        channel.confirm_delivery()
        channel.basic_publish(namespace, ROUTING_KEY, body, properties, mandatory=True)
    except amqp.UnroutableError as error:
        raise Unreachable(f"exchange '{namespace}' has no queue for '{ROUTING_KEY}'. {NO_WORKER}") from error
    except amqp.NackError as error:
        raise Unreachable("the broker refused the message (queue full?)") from error
    except amqp.ChannelClosedByBroker as error:
        hint = f". {NO_WORKER}" if error.reply_code == 404 else ""
        raise Unreachable(f"the broker closed the channel: {error.reply_text}{hint}") from error


def wait_for_event(connection, channel, queue, task_id, deadline):
    """The event whose correlation id is the task id, or None when the time is up."""
    events = []

    def received(_channel, _method, properties, body):
        if properties.correlation_id == task_id:
            events.append(body)

    channel.basic_consume(queue, received, auto_ack=True)
    while not events:
        left = deadline - time.monotonic()
        if left <= 0:
            return None
        connection.process_data_events(time_limit=left)
    return events[0]


def exchange(options, body):
    """Publishes the task, returns its event."""
    deadline = time.monotonic() + options.timeout
    parameters = connection_parameters(options.amqp_url)
    parameters.blocked_connection_timeout = options.timeout
    again = f"Publish it again with --task-id {options.task_id} to be answered: it is counted and paid for once."
    connection = connect(parameters)
    try:
        channel = connection.channel()
        # Exclusive and named by the broker: it goes when this connection does.
        queue = channel.queue_declare("", exclusive=True).method.queue
        properties = pika.BasicProperties(
            content_type="application/json",
            delivery_mode=2,
            reply_to=queue,
            correlation_id=options.task_id,
        )
        publish(channel, options.namespace, properties, body)
        print(f"task {options.task_id} published, waiting for its event", file=sys.stderr)
        event = wait_for_event(connection, channel, queue, options.task_id, deadline)
    except (amqp.AMQPError, OSError) as error:
        raise Unreachable(f"the connection was lost: {why(error)}. {again}") from error
    finally:
        if connection.is_open:
            connection.close()
    if event is None:
        raise Unreachable(
            f"no event for {options.task_id} within {options.timeout:g} s: it is still under way, or it was refused"
            f" (see the dead letters). {again}"
        )
    return event


# ---- the command ------------------------------------------------------------------------------


def broker_options(parser):
    parser.add_argument("--amqp-url", default=os.environ.get("AMQP_URL") or DEFAULT_URL, metavar="URL",
                        help="the broker (environment: AMQP_URL; otherwise guest on localhost)")
    parser.add_argument("--namespace", default=os.environ.get("RETOUCH_NAMESPACE") or "retouch", metavar="NAME",
                        help="the workers' namespace (environment: RETOUCH_NAMESPACE; otherwise retouch)")


def seconds(text):
    value = float(text)
    if not 0 < value < 1e6:
        raise ValueError(text)
    return value


def arguments(argv):
    parser = argparse.ArgumentParser(
        description="Publish one Retouch task and print its event.",
        epilog="example: publish.py --type remove_watermark --prompt 'Remove the watermark' --param seed=7 cat.jpg",
    )
    broker_options(parser)
    parser.add_argument("--type", required=True, metavar="EDIT_TYPE", help="the edit type, such as remove_watermark")
    parser.add_argument("--prompt", default="", metavar="TEXT", help="what to do; some edit types need none")
    parser.add_argument("--param", action="append", default=[], metavar="NAME=JSON",
                        help="one parameter of the edit; may be repeated")
    parser.add_argument("--task-id", default=None, metavar="ID", help="the idempotency key; otherwise a new one")
    parser.add_argument("--timeout", type=seconds, default=300.0, metavar="SECONDS",
                        help="how long to wait for the event (300)")
    parser.add_argument("images", nargs="+", metavar="IMAGE",
                        help="an http(s) URL, sha256:… of a blob the workers have, or a file")
    options = parser.parse_args(argv)
    if options.task_id is None:
        options.task_id = str(uuid.uuid4())
    return options


def status_of(event):
    try:
        return json.loads(event).get("status")
    except (ValueError, AttributeError):
        return None


def main(argv=None):
    options = arguments(argv)
    try:
        event = exchange(options, message(options))
    except Usage as error:
        print(f"publish.py: {error}", file=sys.stderr)
        return USAGE
    except Unreachable as error:
        print(f"publish.py: {error}", file=sys.stderr)
        return UNREACHABLE
    sys.stdout.buffer.write(event + b"\n")
    return DONE if status_of(event) == "completed" else FAILED


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
