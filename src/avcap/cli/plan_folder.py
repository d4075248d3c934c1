"""`avcap plan FILE|DIR...`: files, hours, tokens, time, money and disk of captioning all of it, before it is begun."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

from avcap.cli.app import say, tell
from avcap.infer.inputs import find_media

if TYPE_CHECKING:
    from avcap.bulk.plan import LookedAt
    from avcap.engines.dialect import Dialect

LOCAL_PIXELS = 2**21


def look_at_files(inputs: Sequence[str], *, fps: float, max_frames: int, max_pixels: int) -> "LookedAt":
    """The words of a command line -> what is known of the files they mean; what could not be read is said."""
    from avcap.bulk.plan import length_request, look_at
    from avcap.engines.plan import measure

    found = find_media(inputs)
    if found.not_taken:
        say(found.not_taken.describe())
    looked = look_at(
        found.paths,
        measure=lambda paths: list(measure(paths, max_pixels=max_pixels)),
        request=length_request("", fps=fps, max_frames=max_frames, max_pixels=max_pixels),
    )
    for error in looked.errors:
        say(str(error))
    return looked


def look_at_for_engine(inputs: Sequence[str], dialect: "Dialect") -> "LookedAt":
    """The same, of files that an engine is sent."""
    return look_at_files(inputs, fps=dialect.fps, max_frames=dialect.max_frames, max_pixels=dialect.max_pixels)


def plan_local_files(
    model: str, inputs: Sequence[str], *, device: str | None, dtype: str | None, quantize: str | None
) -> int:
    """A model that runs here and files -> what captioning all of them takes, printed -> how many cannot be read."""
    import torch

    from avcap.bulk.plan import plan_local
    from avcap.infer.find_checkpoint import without_weights
    from avcap.infer.plan import plan
    from avcap.infer.settings import read_settings
    from avcap.model.checkpoint.placement import DevicePlacement, describe_bytes

    where = device or ("cuda" if torch.cuda.is_available() else "cpu")
    form = dtype or ("float32" if where == "cpu" else "bfloat16")
    with without_weights(model) as folder:
        settings = read_settings(folder)
        looked = look_at_files(inputs, fps=settings.fps, max_frames=settings.max_frames, max_pixels=LOCAL_PIXELS)
        make = partial(
            plan, folder, dtype=getattr(torch, form), placement=DevicePlacement(device=where, quantize=quantize)
        )
        found = plan_local(looked, lambda seconds, size: make(seconds=seconds, frame_size=size))
    tell(f"{model}, {looked.num_readable:,} videos of {looked.seconds:,.1f} s together")
    rows = {
        "tokens": f"about {found.prompt_tokens:,}; up to {found.new_tokens:,} written",
        "memory": f"about {describe_bytes(found.most_bytes)} for the longest file",
        "time": f"about {found.model_s / 3600:,.2f} h on this {where}, if all captions are as long as they may be",
    }
    for name, text in rows.items():
        tell(f"  {name:14}{text}")
    for name, text in lines_of_files(looked, new_tokens=settings.max_new_tokens):
        tell(f"  {name:14}{text}")
    return len(looked.errors)


def lines_of_files(looked: "LookedAt", *, new_tokens: int) -> Iterator[tuple[str, str]]:
    """Files that were looked at -> what is to be said of them, whatever captions them."""
    from avcap.bulk.plan import decoding_hours
    from avcap.model.checkpoint.placement import describe_bytes

    yield "files", f"{looked.num_readable:,} of {looked.num_files:,} can be read, {looked.seconds / 3600:,.2f} h"
    if looked.decoding_s:
        yield "decoding", f"about {decoding_hours(looked):,.2f} h on the cores of this machine"
    yield "disk", f"up to {describe_bytes(looked.disk_bytes(new_tokens=new_tokens))} for the record and side-cars"
    if looked.is_sample:
        num = len(looked.lengths) + len(looked.errors)
        yield (
            "extrapolated",
            f"from {num:,} files drawn at random: hours, tokens and money may be {100 * looked.error_share:.0f} % off",
        )
