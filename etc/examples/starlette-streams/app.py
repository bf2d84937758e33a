# SPDX-License-Identifier: Apache-2.0
"""What one client says all others hear, by server-sent events or by long polls."""
import asyncio

from starlette.applications import Starlette
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route

POLL_SECONDS = 60  # narwhal.ini: response_timeout is longer
HEARTBEAT_SECONDS = 15  # narwhal.ini: stream_timeout is longer
KEPT = 1000

said = []  # (number, text), the last KEPT of them
count = 0
news = asyncio.Event()  # set when something was said, and then replaced


def place(text):
    """The number up to which a client heard: what it says, or up to now. A number that was never
    given out is one of an earlier life of this process: then it gets all there is."""
    if not (text or "").isdecimal():
        return count
    return int(text) if int(text) <= count else 0


def after(number):
    return [item for item in said if item[0] > number]


async def wait_for_news(number, seconds):
    """What was said after that number; nothing if nothing is said for so long."""
    if not after(number):
        try:
            await asyncio.wait_for(news.wait(), seconds)
        except asyncio.TimeoutError:
            pass
    return after(number)


async def say(request):
    global count, news
    text = " ".join((await request.body()).decode(errors="replace").splitlines())[:1000]
    count += 1
    said.append((count, text))
    del said[:-KEPT]
    news.set()
    news = asyncio.Event()
    return JSONResponse({"number": count})


async def poll(request):
    """Answers as soon as there is something after ?after=, and with nothing after a minute."""
    found = await wait_for_news(place(request.query_params.get("after")), POLL_SECONDS)
    return JSONResponse([{"number": number, "text": text} for number, text in found])


async def events(request):
    """A browser that was cut off says which event it had last, and misses none."""
    async def stream(last):
        yield ": welcome\n\n"
        while True:
            found = await wait_for_news(last, HEARTBEAT_SECONDS)
            for number, text in found:
                yield f"id: {number}\ndata: {text}\n\n"
                last = number
            if not found:
                yield ": still here\n\n"
    return StreamingResponse(stream(place(request.headers.get("last-event-id"))),
                             media_type="text/event-stream",
                             headers={"Cache-Control": "no-store"})


app = Starlette(routes=[Route("/say", say, methods=["POST"]), Route("/poll", poll),
                        Route("/events", events)])
