"""`avcap serve`."""

import contextlib
import ipaddress
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from avcap.captioners import find_source
from avcap.cli.app import Stopped, app, say
from avcap.cli.caption import Device, DeviceMap, DtypeOption, QuantizeOption, start_captioner
from avcap.cli.model_help import WEIGHTS
from avcap.errors import UserError
from avcap.infer.settings import read_settings
from avcap.web.server.settings import Access, Limits, ServerSettings

if TYPE_CHECKING:
    from avcap.infer.captioner import Captioner

KEY_VARIABLE = "AVCAP_SERVER_KEY"
LIMITS = Limits()
MIB = 2**20
Number = TypeVar("Number", int, float)
OPEN, BOUNDS = "What is opened", "Limits"


@app.command("serve")
def serve(
    model: Annotated[str, typer.Option(metavar="NAME|DIR|ORG/NAME", help=f"What is served: {WEIGHTS}.")] = "tiny",
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="What requests call it. Default: the model's own name.")
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen at; any but loopback needs a key.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen at; 0: any free one.")] = 8000,
    allow_anyone: Annotated[
        bool, typer.Option("--allow-anyone", help="Serve other machines without a key.", rich_help_panel=OPEN)
    ] = False,
    allow_dir: Annotated[
        list[Path] | None,
        typer.Option(metavar="DIR", help="Open file: URLs below this folder; repeatable.", rich_help_panel=OPEN),
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            metavar="HOST[:PORT]|*",
            help="Fetch http(s): URLs of this host; repeatable. *: of any with a public address.",
            rich_help_panel=OPEN,
        ),
    ] = None,
    allow_private: Annotated[
        bool,
        typer.Option(
            "--allow-private", help="Hosts named by --allow-host may have private addresses.", rich_help_panel=OPEN
        ),
    ] = False,
    allow_origin: Annotated[
        list[str] | None,
        typer.Option(metavar="URL", help="Let pages of this origin ask (CORS); repeatable.", rich_help_panel=OPEN),
    ] = None,
    max_file_mb: Annotated[
        int, typer.Option(help="MiB of one video, audio or image.", rich_help_panel=BOUNDS)
    ] = LIMITS.file_bytes // MIB,
    max_seconds: Annotated[
        float, typer.Option(help="Seconds of one video or audio.", rich_help_panel=BOUNDS)
    ] = LIMITS.media_s,
    max_requests: Annotated[
        int, typer.Option(help="Requests under way; more of them get status 429.", rich_help_panel=BOUNDS)
    ] = LIMITS.waiting,
    deadline: Annotated[
        float,
        typer.Option(metavar="S", help="Seconds for decoding, and for encoding, one file.", rich_help_panel=BOUNDS),
    ] = LIMITS.decode_timeout_s,
    timeout: Annotated[
        float, typer.Option(metavar="S", help="Seconds for one request.", rich_help_panel=BOUNDS)
    ] = LIMITS.request_timeout_s,
    keep_mb: Annotated[
        int, typer.Option(help="MiB of features of recent videos, kept for further requests.", rich_help_panel=BOUNDS)
    ] = 2048,
    unload_after: Annotated[
        float | None,
        typer.Option(metavar="S", help="Unload the model after this time without a request.", rich_help_panel=BOUNDS),
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Number of answers in a batch.")] = 8,
    device: Device = None,
    dtype: DtypeOption = None,
    device_map: DeviceMap = None,
    quantize: QuantizeOption = None,
) -> int:
    """Serve a model behind OpenAI's API (/v1/chat/completions), with a page on /. A key stands in AVCAP_SERVER_KEY."""
    source = find_source(model)
    if source.folder is None:
        raise UserError(f"got --model {model}, expected a model with weights here; an engine is a server already")
    key = os.environ.get(KEY_VARIABLE) or None
    check_reach(host, has_key=key is not None, allow_anyone=allow_anyone)
    limits = replace(
        LIMITS,
        file_bytes=_positive("--max-file-mb", max_file_mb) * MIB,
        body_bytes=max_file_mb * MIB * 3 // 2 + MIB,  # base64 takes a third more, and there may be audio beside a video
        held_bytes=max(LIMITS.held_bytes, max_file_mb * MIB * 4),
        media_s=_positive("--max-seconds", max_seconds),
        waiting=_positive("--max-requests", max_requests),
        decode_timeout_s=_positive("--deadline", deadline),
        request_timeout_s=_positive("--timeout", timeout),
    )
    folders = tuple(allow_dir or ())
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"--allow-dir {folder}: not a folder; name one that is there")
    settings = ServerSettings(
        name=name or read_settings(source.folder).name or source.folder.name,
        limits=limits,
        access=Access(
            key=key,
            hosts=host_names(host, is_open=key is not None or allow_anyone),
            origins=tuple(allow_origin or ()),
            folders=folders,
            fetch_hosts=frozenset(one.lower() for one in allow_host or ()),
            fetch_private=allow_private,
        ),
        batch_size=_positive("--batch-size", batch_size),
        kept_bytes=keep_mb * MIB,
        unload_after_s=None if unload_after is None else _positive("--unload-after", unload_after),
    )
    weights = source.weights

    def open_captioner() -> "Captioner":
        return start_captioner(
            weights,
            batch_size=batch_size,
            deadline_s=deadline,
            device=device,
            dtype=dtype,
            device_map=device_map,
            quantize=quantize,
        )

    return _run(open_captioner, settings, host=host, port=port)


def _run(open_captioner: "Callable[[], Captioner]", settings: ServerSettings, *, host: str, port: int) -> int:
    try:
        from avcap.web.server.run import listening, make_server, make_service
    except ModuleNotFoundError as error:
        if error.name not in ("fastapi", "starlette", "uvicorn"):
            raise
        raise UserError(f"{error.name} is not installed; pip install 'avcap[serve]'") from None
    bound = listening(host, port)
    service = make_service(open_captioner, settings)
    shown = f"[{host}]" if ":" in host else host
    say(
        f"{service.model.facts.checkpoint} is served as {settings.name!r} at http://{shown}:{bound.getsockname()[1]}/ "
        "(API: /v1); Ctrl-C ends it"
    )
    # it ends as it is told to, with the requests that are under way, and hands the signal on
    with contextlib.suppress(KeyboardInterrupt, Stopped):
        make_server(service).run(sockets=[bound])
    say(f"ended; {service.metrics.value('requests', status='200'):g} requests were answered")
    return 0


def check_reach(host: str, *, has_key: bool, allow_anyone: bool) -> None:
    """Raises UserError where other machines could ask without a key, and that was not said."""
    if not is_loopback(host) and not has_key and not allow_anyone:
        raise UserError(
            f"got --host {host}, which other machines reach, and no key; expected one in {KEY_VARIABLE} (or "
            "--allow-anyone)"
        )


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def host_names(host: str, *, is_open: bool) -> frozenset[str]:
    """The address that is listened at -> under which names it is asked; none: under any.

    Without a key, a page elsewhere could be given a name that leads here: only names of this machine count then.
    `is_open`: There is a key, which such a page has not, or anyone may ask; a proxy may go by another name.
    """
    if is_open:
        return frozenset()
    return frozenset({"127.0.0.1", "localhost", "[::1]", f"[{host}]" if ":" in host else host})


def _positive(option: str, value: Number) -> Number:
    if not value > 0:
        raise UserError(f"got {option} {value:g}, expected more than 0")
    return value
