"""Runs `make serve`, asks what the line that it prints asks, and stops it: what a new user does first.

scripts/bare.sh --user python3 scripts/first_answer.py
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request

LINE = re.compile(r"curl (\S+) -H 'Content-Type: application/json' -d '(.*)'$")
END_WITHIN_S = 10


def main() -> int:
    """Exit status 0 where the answer came and the server ended well."""
    began = time.monotonic()
    match = None
    with subprocess.Popen(
        ["make", "serve", *sys.argv[1:]],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as server:
        for line in server.stdout or ():
            print(line[:200].rstrip(), flush=True)
            if match := LINE.search(line.strip()):
                print(f"first_answer: printed after {time.monotonic() - began:.0f} s", flush=True)
                print(f"first_answer: {ask(*match.groups())}", flush=True)
                os.kill(child_of(server.pid), signal.SIGINT)
                break
        status = server.wait(END_WITHIN_S)
    print(f"first_answer: the server ended with status {status}")
    return 0 if match and status == 0 else 1


def child_of(make: int) -> int:
    """The server alone: make, told with it, would end of the signal itself, however the server ends."""
    with open(f"/proc/{make}/task/{make}/children", encoding="ascii") as children:
        (server,) = children.read().split()
    return int(server)


def ask(url: str, body: str) -> str:
    """What the server answers to the printed request."""
    request = urllib.request.Request(url, body.encode(), {"Content-Type": "application/json"})  # noqa: S310  our own
    with urllib.request.urlopen(request, timeout=60) as reply:  # noqa: S310
        answer = json.load(reply)
    return str(answer["choices"][0]["message"]["content"])


if __name__ == "__main__":
    sys.exit(main())
