# SPDX-License-Identifier: Apache-2.0
"""A server of the websockets library itself, without uvicorn: python3 app_websockets.py FD. Sends
back what it gets; "close N" closes with that code."""
import asyncio
import socket
import sys

import websockets


async def echo(connection):
    async for message in connection:
        if isinstance(message, str) and message.startswith("close "):
            await connection.close(int(message[6:]), "as asked")
            return
        await connection.send(message)


async def main():
    listener = socket.socket(fileno=int(sys.argv[1]))
    async with websockets.unix_serve(echo, sock=listener, max_size=None):
        await asyncio.Future()


asyncio.run(main())
