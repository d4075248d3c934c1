"""The process that decodes untrusted files, and how it talks: a JSON header, then the bytes of the arrays.

Nothing is pickled: a decoder that a hostile file has taken over must not be able to run code in the asking process.

    request  {"request": fields of ClipRequest, "directory": what relative paths start from}
    reply    {"clip": fields of Clip, "arrays": {name: [dtype, shape]}} + the arrays' bytes, or {"error": message}
"""

import contextlib
import dataclasses
import json
import logging
import os
import signal
import socket
import struct
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from avcap.errors import MediaError
from avcap.media.clip import Clip, ClipRequest
from avcap.media.frame_size import PixelBudget

logger = logging.getLogger("avcap")

HEADER_SIZE = struct.Struct("!I")
ARRAY_FIELDS = ("frames_THWC", "frame_times_T", "lead_in_frame_HWC", "waveform_S")

# Fills a buffer with the next bytes of the connection.
ReceiveInto = Callable[[memoryview], None]


OUT_OF_MEMORY = "memory ran out while it was decoded; caption a part of it (--start, --end), or on a larger machine"


def unforeseen(path: str, error: Exception) -> str:
    """File and an exception that nobody thought of -> the line for it."""
    detail = " ".join(str(error).split())[:200]
    return f"{path}: {type(error).__name__}{f' ({detail})' if detail else ''} while it was decoded; please report it"


class ConnectionClosed(Exception):
    """The other side is gone."""


def serve(connection: socket.socket) -> None:
    """Connection -> Clips for the requests that come in on it, until the other side closes it."""
    from avcap.media.reader import read_request  # here: the asking process imports this module, and needs no PyAV

    while True:
        try:
            message = receive_header(lambda view: receive_into(connection, view))
        except ConnectionClosed:
            return
        clip = None
        try:
            os.chdir(message["directory"])
            clip = read_request(_request(message["request"]))
        except MediaError as error:
            send_header(connection, {"error": str(error)})
        except MemoryError:
            send_header(connection, {"error": f"{message['request']['path']}: {OUT_OF_MEMORY}"})
        except Exception as error:  # of one file among thousands: said as its error, and the next may be whole
            logger.debug("unforeseen", exc_info=True)
            send_header(connection, {"error": unforeseen(message["request"]["path"], error)})
        else:
            send_clip(connection, clip)


def receive_into(connection: socket.socket, view: memoryview) -> None:
    """Fill `view` from the connection."""
    while len(view):
        num_received = connection.recv_into(view)
        if num_received == 0:
            raise ConnectionClosed
        view = view[num_received:]


def send_header(connection: socket.socket, message: dict[str, Any]) -> None:
    """Send a JSON message, its length first."""
    payload = json.dumps(message).encode()
    connection.sendall(HEADER_SIZE.pack(len(payload)) + payload)


def receive_header(receive: ReceiveInto) -> dict[str, Any]:
    """-> the next JSON message."""
    size = bytearray(HEADER_SIZE.size)
    receive(memoryview(size))
    payload = bytearray(HEADER_SIZE.unpack(size)[0])
    receive(memoryview(payload))
    return json.loads(payload)


def send_clip(connection: socket.socket, clip: Clip) -> None:
    """Send a Clip: plain fields in the header, arrays as they lie in memory."""
    fields = {field.name: getattr(clip, field.name) for field in dataclasses.fields(clip)}
    arrays = {name: fields.pop(name) for name in ARRAY_FIELDS}
    present = {name: np.ascontiguousarray(array) for name, array in arrays.items() if array is not None}
    layouts = {name: [array.dtype.name, array.shape] for name, array in present.items()}
    send_header(connection, {"clip": fields, "arrays": layouts})
    for array in present.values():
        if array.size:
            connection.sendall(array.reshape(-1).view(np.uint8).data)


def receive_clip(receive: ReceiveInto) -> Clip:
    """-> the Clip of the next reply; a reply that is an error is raised as MediaError."""
    message = receive_header(receive)
    if "error" in message:
        raise MediaError(message["error"])
    arrays: dict[str, Any] = dict.fromkeys(ARRAY_FIELDS)
    for name, (dtype, shape) in message["arrays"].items():
        array = np.empty(shape, dtype)
        if array.size:
            receive(array.reshape(-1).view(np.uint8).data)
        arrays[name] = array
    fields = message["clip"]
    return Clip(**fields | {"notes": tuple(fields["notes"])}, **arrays)


def _request(fields: dict[str, Any]) -> ClipRequest:
    """Fields of a ClipRequest as they come out of JSON -> it."""
    fields = {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}
    budget = fields.pop("pixel_budget")
    return ClipRequest(**fields, pixel_budget=None if budget is None else PixelBudget(**budget))


def main() -> None:
    """Serve the connection whose file descriptor is the last argument."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the asking process, which then ends this one
    # A broken pipe: the asking process has ended, or has given this file up.
    with socket.socket(fileno=int(sys.argv[-1])) as connection, contextlib.suppress(BrokenPipeError):
        serve(connection)
