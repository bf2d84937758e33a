# SPDX-License-Identifier: Apache-2.0
"""A Flask application. ProxyFix makes request.remote_addr and url_for() those of the client; the one
proxy that is believed is narwhal, which does not let clients write these fields."""
import os
import time

from flask import Flask, request
from werkzeug.middleware.proxy_fix import ProxyFix

app = Flask(__name__)
app.wsgi_app = ProxyFix(app.wsgi_app, x_for=1, x_proto=1, x_host=1)


@app.get("/")
def hello():
    return {"hello": request.remote_addr, "url": request.url, "pid": os.getpid()}


@app.get("/report")
def report():
    """Work that keeps the whole process busy."""
    time.sleep(0.25)
    return {"pid": os.getpid()}


@app.post("/upload")
def upload():
    return {"bytes": len(request.get_data())}
