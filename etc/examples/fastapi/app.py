# SPDX-License-Identifier: Apache-2.0
"""A FastAPI application with a WebSocket. It knows nothing of narwhal."""
import os

from fastapi import FastAPI, Request, WebSocket, WebSocketDisconnect

app = FastAPI()


@app.get("/")
async def hello(request: Request):
    return {"hello": request.client.host, "url": str(request.url), "pid": os.getpid()}


@app.websocket("/echo")
async def echo(socket: WebSocket):
    await socket.accept()
    try:
        while True:
            await socket.send_text(await socket.receive_text())
    except WebSocketDisconnect:
        pass
