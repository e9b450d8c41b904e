"""Calls `images.edit` of the official OpenAI SDK, unchanged, and prints what it answered.

    openai_edit.py '{"image": "a.png", "prompt": "…", …}'

`image` (one path or several) and `mask` are opened, all else is passed on. Prints the answer, or {"raised": class, "status":
…, "code": …}. The base URL and the key come from OPENAI_BASE_URL and OPENAI_API_KEY, which the SDK reads by itself.
"""

import json
import sys

import openai


def opened(paths):
    return [open(path, "rb") for path in paths] if isinstance(paths, list) else open(paths, "rb")


def main() -> None:
    arguments = json.loads(sys.argv[1])
    for name in ("image", "mask"):
        if name in arguments:
            arguments[name] = opened(arguments[name])
    try:
        print(json.dumps(openai.OpenAI().images.edit(**arguments).model_dump(exclude_none=True)))
    except openai.APIError as error:
        status = getattr(error, "status_code", None)
        print(json.dumps({"raised": type(error).__name__, "status": status, "code": error.code}))


main()
