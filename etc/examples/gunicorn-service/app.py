# SPDX-License-Identifier: Apache-2.0
"""A FastAPI application with the endpoint that narwhal's health checks ask for."""
import os

from fastapi import FastAPI

app = FastAPI()


@app.get("/")
async def hello():
    return {"hello": "world", "pid": os.getpid()}


@app.get("/healthz")
async def healthz():
    return "ok"
