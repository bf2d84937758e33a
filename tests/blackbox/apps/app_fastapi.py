# SPDX-License-Identifier: Apache-2.0
"""The real application of the tests, an ASGI one: uvicorn app_fastapi:app."""
import asyncio
import hashlib
import os

from fastapi import FastAPI, Request, WebSocket, WebSocketDisconnect
from fastapi.responses import StreamingResponse

app = FastAPI()
room = set()


@app.get("/pid")
async def pid():
    return {"pid": os.getpid()}


@app.post("/sha256")
async def sha256(request: Request):
    digest, length = hashlib.sha256(), 0
    async for piece in request.stream():
        digest.update(piece)
        length += len(piece)
    return {"sha256": digest.hexdigest(), "length": length}


@app.get("/scope")
async def scope(request: Request):
    return {"headers": [[name.decode("latin-1"), value.decode("latin-1")]
                        for name, value in request.headers.raw],
            "client": request.client.host if request.client else None,
            "path": request.url.path}


@app.get("/stream/{count}")
async def stream(count: int):
    async def pieces():
        for number in range(count):
            yield f"data: {number}\n\n"
            await asyncio.sleep(0)
    return StreamingResponse(pieces(), media_type="text/event-stream")


@app.websocket("/echo")
async def echo(socket: WebSocket):
    """"close N" closes with that code."""
    await socket.accept()
    while (message := await socket.receive())["type"] == "websocket.receive":
        text = message.get("text")
        if text is None:
            await socket.send_bytes(message["bytes"])
        elif text.startswith("close "):
            await socket.close(int(text[6:]))
            return
        else:
            await socket.send_text(text)


@app.websocket("/chat")
async def chat(socket: WebSocket):
    await socket.accept()
    room.add(socket)
    await socket.send_text(f"joined {len(room)}")
    try:
        while True:
            text = await socket.receive_text()
            for member in list(room):
                await member.send_text(text)
    except WebSocketDisconnect:
        pass
    finally:
        room.discard(socket)
