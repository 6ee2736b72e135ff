"""WebSockets with a library that others wrote, either end of it. One JSON object per line on stdout.

    sockets.py serve                 an echo that keeps fragments apart and pings before each answer; tells of each
                                     connection how it ended
    sockets.py talk URL [deflate]    messages of every kind and size there and back, a ping, and a close of our own
    sockets.py told URL              as told by the server: it closes
    sockets.py stay URL              some messages, then nothing, until the connection ends
"""

import asyncio
import json
import sys

from websockets.asyncio.client import connect
from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed

DEADLINE = 60
SUBPROTOCOL = "signet.echo"
# Either side of each form of a frame's length, and more than any window on the way.
SIZES = [0, 1, 125, 126, 65_535, 65_536, 900_000]
FRAGMENTS = ["one, ", "two", "", ", \u2713 three" * 10_000]


def say(**fields):
    print(json.dumps(fields), flush=True)


async def whole(connection):
    return [fragment async for fragment in connection.recv_streaming()]


def deflates(connection):
    return [extension.name for extension in connection.protocol.extensions]


async def echo(connection):
    messages, pings = 0, []
    try:
        while True:
            fragments = await whole(connection)
            if fragments == ["close"]:
                await connection.close(4321, "as you say \u2713")
                break
            # Its pong is behind all that has come by now, and cannot be waited for here.
            pings.append(await connection.ping())
            # More than one are sent as so many frames.
            await connection.send(fragments if len(fragments) > 1 else fragments[0])
            messages += 1
    except ConnectionClosed:
        pass
    await connection.wait_closed()
    pongs = sum(ping.done() and ping.exception() is None for ping in pings)
    say(code=connection.close_code, reason=connection.close_reason, messages=messages, pongs=pongs)


async def listen():
    async with serve(echo, "127.0.0.1", 0, subprotocols=[SUBPROTOCOL]) as server:
        host, port = server.sockets[0].getsockname()
        say(address=f"{host}:{port}")
        await server.serve_forever()


def to(url, deflate=None):
    return connect(url, proxy=None, subprotocols=[SUBPROTOCOL], compression=deflate)


async def talk(url, deflate=None):
    async with to(url, deflate) as connection:
        await (await connection.ping(b"hello?"))
        messages = [kind * size for kind in ("x", b"\x00") for size in SIZES] + ["\u2713 and \U0001f512", bytes(range(256))]
        for message in messages:
            await connection.send(message)
            back = await connection.recv()
            assert back == message, (len(message), len(back))
        await connection.send(FRAGMENTS)
        back = await whole(connection)
        assert "".join(back) == "".join(FRAGMENTS), back
        # All at once, and the answers in order.
        for number in range(100):
            await connection.send(str(number))
        for number in range(100):
            assert await connection.recv() == str(number)
        await connection.close(4000, "enough")
    say(
        messages=len(messages) + 1 + 100,
        fragments=len(back),
        subprotocol=connection.subprotocol,
        extensions=deflates(connection),
        code=connection.close_code,
    )


async def told(url):
    async with to(url) as connection:
        await connection.send("close")
        await connection.wait_closed()
    say(code=connection.close_code, reason=connection.close_reason)


async def stay(url):
    async with to(url) as connection:
        for number in range(3):
            await connection.send(str(number))
            assert await connection.recv() == str(number)
        say(open=True)
        await connection.wait_closed()
    say(code=connection.close_code)


def main(arguments):
    match arguments:
        case ["serve"]:
            asyncio.run(listen())
        case ["talk", url, *deflate]:
            asyncio.run(asyncio.wait_for(talk(url, *deflate), DEADLINE))
        case ["told", url]:
            asyncio.run(asyncio.wait_for(told(url), DEADLINE))
        case ["stay", url]:
            asyncio.run(asyncio.wait_for(stay(url), DEADLINE))
        case _:
            sys.exit(__doc__)


main(sys.argv[1:])
