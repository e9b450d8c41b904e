"""Sends tasks, one JSON object a line, as a framework wants them: enqueue.py celery|dramatiq FILE."""

import json
import sys

framework, file = sys.argv[1:]
if framework == "celery":
    from celery_app import edit

    send = edit.delay
else:
    from dramatiq_app import edit

    send = edit.send

with open(file, encoding="utf-8") as lines:
    for line in lines:
        send(json.loads(line))
