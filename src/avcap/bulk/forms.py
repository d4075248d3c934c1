"""What --format names: each form by its name. No torch."""

from collections.abc import Mapping

from avcap.bulk.outputs.clips import SideCar, Table
from avcap.bulk.outputs.diffusion_pipe import DIFFUSION_PIPE
from avcap.bulk.outputs.h3 import H3
from avcap.bulk.outputs.ltx import LTX
from avcap.bulk.outputs.metadata import METADATA
from avcap.bulk.outputs.musubi import MUSUBI
from avcap.bulk.outputs.parquet import PARQUET
from avcap.bulk.outputs.text import AI_TOOLKIT, SIMPLETUNER, TEXT
from avcap.errors import UserError

FORMS: Mapping[str, SideCar | Table] = {
    "txt": TEXT,
    "ltx": LTX,
    "musubi": MUSUBI,
    "h3": H3,
    "diffusion-pipe": DIFFUSION_PIPE,
    "ai-toolkit": AI_TOOLKIT,
    "simpletuner": SIMPLETUNER,
    "metadata": METADATA,
    "parquet": PARQUET,
}
"""Of captions of whole clips."""
SUBTITLES = ("srt", "vtt")
"""Of captions of intervals."""
DEFAULT = "txt"


def read_forms(names: list[str]) -> tuple[list[str], list[str]]:
    """--format, as often as it was given -> the forms of whole clips, and those of intervals.

    Raises:
        UserError: a name is none, both kinds were asked for, or two forms would write one side-car.
    """
    names = list(dict.fromkeys(names)) or [DEFAULT]
    if unknown := [name for name in names if name not in FORMS and name not in SUBTITLES]:
        raise UserError(f"got --format {unknown[0]}, expected one of {', '.join((*FORMS, *SUBTITLES))}")
    whole = [name for name in names if name in FORMS]
    subtitles = [name for name in names if name in SUBTITLES]
    if whole and subtitles:
        raise UserError(
            f"got --format {whole[0]} and --format {subtitles[0]}: one is of whole clips, the other of intervals; run "
            "the command once for each, with the same --out"
        )
    side_cars = [name for name in whole if isinstance(FORMS[name], SideCar)]
    if len(side_cars) > 1:
        raise UserError(
            f"got --format {side_cars[0]} and --format {side_cars[1]}, which write the same side-cars; choose one"
        )
    for name in whole:
        form = FORMS[name]
        if isinstance(form, Table):
            form.check()
    return whole, subtitles
