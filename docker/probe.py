#!/usr/bin/env python3
"""Asks the server in this container how it is: `probe.py /health/live`. Exit status 0 means well; no curl needed.

Looks where AIN_PORT says, so set the port there and not with --port.
"""

import http.client
import os
import sys

connection = http.client.HTTPConnection("127.0.0.1", int(os.environ.get("AIN_PORT") or 8000), timeout=4)
try:
    connection.request("GET", sys.argv[1])
    response = connection.getresponse()
    print(response.status, response.read().decode(errors="replace"))  # shown by `docker inspect`
    sys.exit(response.status != 200)
except OSError as error:
    sys.exit(f"no answer: {error}")
