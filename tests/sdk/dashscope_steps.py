"""Drives the official DashScope SDK, unchanged, and prints what it answered.

    dashscope_steps.py '[["ImageSynthesis.async_call", {"model": "…", …}], ["ImageSynthesis.wait", {"task": {"answer": 0}}]]'

Each step is a method and its arguments; {"answer": N} stands for what step N answered. One JSON document per step: the
answer, or {"raised": class, "message": text}. The base URL and the key come from DASHSCOPE_HTTP_BASE_URL and
DASHSCOPE_API_KEY, which the SDK reads by itself.
"""

import json
import sys

import dashscope


def main() -> None:
    answers = []
    for name, arguments in json.loads(sys.argv[1]):
        for argument, value in arguments.items():
            if isinstance(value, dict) and "answer" in value:
                arguments[argument] = answers[value["answer"]]
        method = dashscope
        for part in name.split("."):
            method = getattr(method, part)
        try:
            answers.append(method(**arguments))
        except Exception as error:  # whatever the SDK raises is an answer to the test
            answers.append({"raised": type(error).__name__, "message": str(error)})
        print(json.dumps(answers[-1], default=str), flush=True)


main()
