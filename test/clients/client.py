"""A WebSocket client for the tests: commands come as JSON lines on stdin, events go as JSON lines to stdout.

usage: client.py URL [--protocol NAME]... [--no-compression]
"""
import argparse
import asyncio
import base64
import json
import logging
import os
import sys

import websockets


def tell(**event):
    sys.stdout.write(json.dumps(event) + "\n")
    sys.stdout.flush()


class ControlFrames(logging.Handler):
    """The library answers pings by itself; only its debug log reports them."""

    def emit(self, record):
        line = record.getMessage()
        for kind in ("PING", "PONG"):
            if line.startswith("< " + kind):
                tell(event="in", kind=kind)
            elif line.startswith("> " + kind):
                tell(event="out", kind=kind)


async def fragments(parts):
    for part in parts:
        yield part


async def obey(connection, line):
    command = json.loads(line)
    do = command["do"]
    if do == "send":
        await connection.send(command["text"])
    elif do == "binary":
        await connection.send(base64.b64decode(command["data"]))
    elif do == "fragments":
        await connection.send(fragments(command["parts"]))
    elif do == "ping":
        await (await connection.ping())
        tell(event="pong")
    elif do == "close":
        await connection.close(command.get("code", 1000), command.get("reason", ""))
    elif do == "die":
        os._exit(0)


async def commands(connection):
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=2**24)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        try:
            await obey(connection, line)
        except websockets.ConnectionClosed:
            return


async def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("--protocol", action="append")
    parser.add_argument("--no-compression", action="store_true")
    arguments = parser.parse_args()

    logger = logging.getLogger("client")
    logger.propagate = False
    logger.setLevel(logging.DEBUG)
    logger.addHandler(ControlFrames())

    # Other options are the library's defaults, the offer of compression included.
    options = {"subprotocols": arguments.protocol, "logger": logger, "ping_interval": None}
    if arguments.no_compression:
        options["compression"] = None
    try:
        connection = await websockets.connect(arguments.url, **options)
    except websockets.InvalidHandshake as error:
        response = getattr(error, "response", None)
        tell(event="refused", status=getattr(error, "status_code", None) or getattr(response, "status_code", None))
        return

    # The newer of the library's two implementations keeps extensions on the protocol object.
    extensions = connection.extensions if hasattr(connection, "extensions") else connection.protocol.extensions
    tell(event="open", protocol=connection.subprotocol or "", extensions=",".join(extension.name for extension in extensions))
    listening = asyncio.ensure_future(commands(connection))
    try:
        while True:
            message = await connection.recv()
            if isinstance(message, str):
                tell(event="text", text=message)
            else:
                tell(event="binary")
    except websockets.ConnectionClosed:
        tell(event="closed", code=connection.close_code, reason=connection.close_reason)
    listening.cancel()


asyncio.run(main())
