"""One task as the classic design works it off: for each image SELECT, UPDATE hit_count; then INSERT the task's row; autocommit.

Connections are kept, to the database and (requests.Session) to the picture server: the kindest reading of that design.
"""

import hashlib
import json
import os
import threading
from urllib.parse import urlsplit

import pymysql
import requests

_local = threading.local()

SELECT = "SELECT id, result_url FROM plain_cache WHERE image_hash = %s AND edit_type = %s AND prompt = %s"
UPDATE = "UPDATE plain_cache SET hit_count = hit_count + 1, last_hit_at = UTC_TIMESTAMP(3) WHERE id = %s"
INSERT = (
    "INSERT INTO plain_tasks (task_id, edit_type, prompt, status, image_hashes, results, completed_at)"
    " VALUES (%s, %s, %s, 'completed', %s, %s, UTC_TIMESTAMP(3))"
)


def _database():
    if not hasattr(_local, "database"):
        url = urlsplit(os.environ["DATABASE_URL"])
        _local.database = pymysql.connect(
            host=url.hostname,
            port=url.port,
            user=url.username,
            password=url.password or "",
            database=url.path.lstrip("/"),
            autocommit=True,
            charset="utf8mb4",
        )
        _local.http = requests.Session()
    return _local.database, _local.http


def edit(task):
    database, http = _database()
    hashes, results = [], []
    with database.cursor() as cursor:
        for image in task["images"]:
            answer = http.get(image["url"], timeout=20)
            answer.raise_for_status()
            image_hash = hashlib.sha256(answer.content).hexdigest()
            cursor.execute(SELECT, (image_hash, task["edit_type"], task["prompt"]))
            row = cursor.fetchone()
            if row is None:
                raise LookupError(f"{image_hash} is not in the cache: only hits are compared")
            cursor.execute(UPDATE, (row[0],))
            hashes.append(image_hash)
            results.append({"image_hash": image_hash, "result_url": row[1]})
        values = (task["task_id"], task["edit_type"], task["prompt"], json.dumps(hashes), json.dumps(results))
        cursor.execute(INSERT, values)
