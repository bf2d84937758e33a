# SPDX-License-Identifier: Apache-2.0
"""The application of the quickstart: FastAPI under uvicorn, in as many processes as the settings
file says. It knows nothing of narwhal; any program that listens on a socket does."""

import asyncio
import os
import time

from fastapi import FastAPI, Query, Request, WebSocket, WebSocketDisconnect

# The pages of FastAPI's own documentation load scripts from elsewhere; this works without a network.
app = FastAPI(title="narwhal quickstart", docs_url=None, redoc_url=None,
              openapi_url="/api/openapi.json")
started = time.monotonic()
answered = 0


@app.middleware("http")
async def count_requests(request, call_next):
    global answered
    answered += 1
    return await call_next(request)


@app.get("/api/")
async def index():
    """The endpoints there are."""
    return {"endpoints": sorted(route.path for route in app.routes)}


@app.get("/api/hello/{name}")
async def hello(name: str):
    return {"hello": name}


@app.get("/api/whoami")
async def whoami(request: Request):
    """Which process answers, and what it knows of the client through narwhal."""
    return {
        "pid": os.getpid(),
        "answered": answered,
        "uptime_seconds": round(time.monotonic() - started, 1),
        "client": request.headers.get("x-forwarded-for"),
        "url": str(request.url),
    }


@app.get("/api/slow")
async def slow(seconds: float = Query(1.0, ge=0, le=30)):
    """An answer that takes its time: reload or stop narwhal meanwhile, it still arrives."""
    await asyncio.sleep(seconds)
    return {"pid": os.getpid(), "waited_seconds": seconds}


@app.websocket("/api/ws")
async def echo(socket: WebSocket):
    """Sends every message back, with the process that did."""
    await socket.accept()
    try:
        while True:
            text = await socket.receive_text()
            await socket.send_json({"pid": os.getpid(), "echo": text})
    except WebSocketDisconnect:
        pass
