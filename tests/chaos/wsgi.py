# SPDX-License-Identifier: Apache-2.0
"""What gunicorn serves in chaos runs: "ok" to everything, at /spin after four busy seconds."""
import time


def application(environ, start_response):
    if environ["PATH_INFO"] == "/spin":
        end = time.monotonic() + 4
        while time.monotonic() < end:
            pass
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "3")])
    return [b"ok\n"]
