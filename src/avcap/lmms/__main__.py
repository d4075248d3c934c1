"""Writes tasks for lmms-eval, and prints how to run them.

python -m avcap.lmms WORLD FOLDER                                    captions of a world, judged by its oracle
python -m avcap.lmms BENCHMARK DATA VIDEOS openai:MODEL@URL FOLDER   a benchmark of captions, judged by a language model
"""

import sys
from pathlib import Path

from avcap.errors import UserError
from avcap.lmms.benchmark_task import write_benchmark_task
from avcap.lmms.world_task import write_task


def main(arguments: list[str]) -> int:
    """Arguments -> exit code."""
    try:
        if len(arguments) == 2:
            path = write_task(Path(arguments[0]), Path(arguments[1]))
        elif len(arguments) == 5:
            name, data, videos, judge, folder = arguments
            path = write_benchmark_task(name, data=Path(data), videos=Path(videos), judge=judge, folder=Path(folder))
        else:
            print(__doc__, file=sys.stderr)
            return 2
    except UserError as error:
        print(f"avcap: {error}", file=sys.stderr)
        return 2
    print(f"lmms-eval --model avcap --model_args model=tiny --include_path {path.parent} --tasks {path.stem}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
