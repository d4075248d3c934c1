"""The command `avcap`. Torch is imported only by commands that compute, and only once their arguments are checked.

One file for each group of commands, registered by being imported here; `--help` lists them in this order.
"""

from avcap.cli.starting import loaded  # first of all

# isort: split
from avcap.cli import (
    bulk,
    caption,
    compare,
    evaluate,
    events,
    judge,
    models,
    official,
    pairs,
    qa,
    rebirth,
    rounds,
    sample,
    serve,
    track,
    train,
    world,
)
from avcap.cli.app import main

loaded()

__all__ = [
    "bulk",
    "caption",
    "compare",
    "evaluate",
    "events",
    "judge",
    "main",
    "models",
    "official",
    "pairs",
    "qa",
    "rebirth",
    "rounds",
    "sample",
    "serve",
    "track",
    "train",
    "world",
]
