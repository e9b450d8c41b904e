#!/usr/bin/env python3
"""Publish task messages from a JSON Lines file as fast as the broker takes them.

Each line is one task message as docs/contract.md describes it, sent as it stands. Messages are published
without waiting for one another; the confirms are counted, and the program ends when all have come.
A summary goes to standard output as JSON.
Exit codes: 0 all confirmed, 1 some refused by the broker, 2 usage, 3 could not connect, or no confirms in time.
"""

import argparse
import json
import sys
import time
import uuid

import pika
from pika import exceptions as amqp

from publish import (
    DONE, FAILED, MAX_MESSAGE, NO_WORKER, ROUTING_KEY, UNREACHABLE, USAGE, Unreachable, Usage, broker_options,
    connection_parameters, seconds, why,
)

# Enough to keep the broker busy, little enough to stay small in memory when it is slow.
WINDOW_MESSAGES = 2_000
WINDOW_BYTES = 64 * 1024 * 1024
BATCH = 100


def lines(path):
    """The file's task messages; a line that is not a JSON object stops everything before the first is sent."""
    tasks = []
    try:
        with sys.stdin.buffer if path == "-" else open(path, "rb") as file:
            for number, line in enumerate(file, 1):
                line = line.strip()
                if not line:
                    continue
                try:
                    task = json.loads(line)
                except ValueError as error:
                    raise Usage(f"{path}:{number}: not JSON: {error}") from error
                if not isinstance(task, dict):
                    raise Usage(f"{path}:{number}: not a JSON object")
                if len(line) > MAX_MESSAGE:
                    raise Usage(f"{path}:{number}: {len(line)} bytes, more than {MAX_MESSAGE}")
                tasks.append((line, task))
    except OSError as error:
        raise Usage(f"{path}: {error.strerror}") from error
    if not tasks:
        raise Usage(f"{path}: no task in it")
    return tasks


def renamed(task, task_id):
    return json.dumps({**task, "task_id": task_id}, ensure_ascii=False, separators=(",", ":")).encode("utf-8")


def bodies(tasks, count):
    """`count` messages: the file from the top, and again from the top, each further round under new task ids."""
    for index in range(count):
        turn, position = divmod(index, len(tasks))
        line, task = tasks[position]
        task_id = task.get("task_id")
        if task_id is None:
            yield renamed(task, str(uuid.uuid4()))
        elif turn == 0:
            yield line
        else:
            yield renamed(task, f"{task_id}.{turn + 1}")


class Publisher:
    """One channel with confirms. Everything happens in pika's loop, so nothing here is shared between threads."""

    def __init__(self, parameters, namespace, messages, stall):
        self.namespace, self.messages, self.stall = namespace, messages, stall
        self.published = self.confirmed = self.refused = self.returned = 0
        self.open = {}  # delivery tag -> size, of what is not confirmed yet
        self.open_bytes = 0
        self.waiting = None  # a message that did not fit the window
        self.exhausted = False
        self.problem = None
        self.progress = time.monotonic()
        self.where = f"{parameters.host}:{parameters.port}"
        self.connection = pika.SelectConnection(
            parameters,
            on_open_callback=lambda connection: connection.channel(on_open_callback=self.channel_opened),
            on_open_error_callback=self.not_opened,
            on_close_callback=self.connection_closed,
        )

    def run(self):
        self.watch()
        self.connection.ioloop.start()
        if self.problem:
            raise Unreachable(self.problem)

    def stop(self, problem=None):
        self.problem = self.problem or problem
        if self.connection.is_open:
            self.connection.close()
            self.connection.ioloop.call_later(2, self.connection.ioloop.stop)  # a blocked broker answers no close
        else:
            self.connection.ioloop.stop()

    # -- callbacks of the connection

    def not_opened(self, _connection, error):
        self.stop(f"no connection to {self.where}: {why(error)}")

    def connection_closed(self, _connection, error):
        if not self.finished():
            self.problem = self.problem or f"the connection was lost: {why(error)}; {self.left()}"
        self.connection.ioloop.stop()

    def channel_opened(self, channel):
        self.channel = channel
        channel.add_on_close_callback(self.channel_closed)
        channel.add_on_return_callback(self.handed_back)
        channel.confirm_delivery(self.settled, callback=lambda _frame: self.fill())

    def channel_closed(self, _channel, error):
        if not self.finished():
            hint = f". {NO_WORKER}" if getattr(error, "reply_code", None) == 404 else ""
            self.stop(f"the channel was closed: {why(error)}; {self.left()}{hint}")

    def handed_back(self, _channel, _method, _properties, _body):
        self.returned += 1  # the broker confirms it as well, after this

    def settled(self, frame):
        tag = frame.method.delivery_tag
        tags = [t for t in self.open if t <= tag] if frame.method.multiple else [tag]
        for each in tags:
            self.open_bytes -= self.open.pop(each)
        if isinstance(frame.method, pika.spec.Basic.Ack):
            self.confirmed += len(tags)
        else:
            self.refused += len(tags)
        self.progress = time.monotonic()
        if self.finished():
            self.stop()
        else:
            self.fill()

    # -- sending

    def fill(self):
        """Publishes until the window is full, a batch at a time so that confirms are read in between."""
        for _ in range(BATCH):
            if self.waiting is None:
                self.waiting = next(self.messages, None)
            if self.waiting is None:
                self.exhausted = True
                if self.finished():  # the last confirms came before we knew that nothing was left
                    self.stop()
                return
            if len(self.open) >= WINDOW_MESSAGES or (self.open and self.open_bytes + len(self.waiting) > WINDOW_BYTES):
                return
            body, self.waiting = self.waiting, None
            self.channel.basic_publish(
                self.namespace, ROUTING_KEY, body,
                pika.BasicProperties(content_type="application/json", delivery_mode=2), mandatory=True,
            )
            self.published += 1
            self.open[self.published] = len(body)
            self.open_bytes += len(body)
        self.connection.ioloop.call_later(0, self.resume)

    def resume(self):
        if self.channel.is_open and not self.exhausted:
            self.fill()

    def watch(self):
        if time.monotonic() - self.progress > self.stall:
            self.stop(f"no confirm for {self.stall:g} s; {self.left()}")
            return
        self.connection.ioloop.call_later(0.5, self.watch)

    def finished(self):
        return self.exhausted and not self.open

    def left(self):
        return f"{self.published} published, {self.confirmed} confirmed"


def main(argv=None):
    parser = argparse.ArgumentParser(
        description="Publish task messages from a JSON Lines file.",
        epilog="example: bulk.py --file tasks.jsonl --count 10000",
    )
    broker_options(parser)
    parser.add_argument("--file", required=True, metavar="PATH", help="one task message a line; - is standard input")
    parser.add_argument("--count", type=int, default=None, metavar="N",
                        help="how many messages; more than the file has: again from its top, with .2, .3, … after"
                             " the task ids (otherwise each line once)")
    parser.add_argument("--timeout", type=seconds, default=30.0, metavar="SECONDS",
                        help="give up when no confirm has come for so long (30)")
    options = parser.parse_args(argv)
    try:
        if options.count is not None and options.count < 1:
            raise Usage("--count: 1 at least")
        tasks = lines(options.file)
        count = options.count or len(tasks)
        publisher = Publisher(
            connection_parameters(options.amqp_url), options.namespace, bodies(tasks, count), options.timeout,
        )
        start = time.monotonic()
        publisher.run()
    except Usage as error:
        print(f"bulk.py: {error}", file=sys.stderr)
        return USAGE
    except (Unreachable, amqp.AMQPError, OSError) as error:
        print(f"bulk.py: {error}", file=sys.stderr)
        return UNREACHABLE
    took = time.monotonic() - start
    print(json.dumps({
        "published": publisher.published, "confirmed": publisher.confirmed - publisher.returned,
        "returned": publisher.returned, "refused": publisher.refused,
        "seconds": round(took, 3), "per_second": round(publisher.published / took, 1),
    }))
    if publisher.returned:
        print(f"bulk.py: exchange '{options.namespace}' has no queue for '{ROUTING_KEY}'. {NO_WORKER}",
              file=sys.stderr)
    return FAILED if publisher.returned or publisher.refused else DONE


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
