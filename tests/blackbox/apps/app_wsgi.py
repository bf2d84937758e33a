# SPDX-License-Identifier: Apache-2.0
"""A WSGI application: gunicorn app_wsgi:app."""
import os

from flask import Flask, request

app = Flask(__name__)


@app.get("/pid")
def pid():
    return {"pid": os.getpid(), "parent": os.getppid()}


@app.post("/length")
def length():
    return {"length": len(request.get_data())}
