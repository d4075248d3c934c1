"""python -m avcap.lmms WORLD FOLDER: writes the captioning task of a world for lmms-eval, and prints how to run it."""

import sys
from pathlib import Path

from avcap.errors import UserError
from avcap.lmms.world_task import TASK_NAME, write_task


def main(arguments: list[str]) -> int:
    """Arguments -> exit code."""
    if len(arguments) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        path = write_task(Path(arguments[0]), Path(arguments[1]))
    except UserError as error:
        print(f"avcap: {error}", file=sys.stderr)
        return 2
    print(f"lmms-eval --model avcap --model_args model=tiny --include_path {path.parent} --tasks {TASK_NAME}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
