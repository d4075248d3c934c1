"""Where a run's figures go: metrics.jsonl always, a progress bar on a terminal, TensorBoard when asked for."""

import json
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from avcap.errors import UserError
from avcap.files.write import write_text


class RunLog:
    """Context manager: `log(step, metrics)` appends a line to metrics.jsonl; lines after a resumed step are cut off."""

    def __init__(self, folder: Path, *, title: str, num_steps: int, start_step: int, tensorboard: bool = False):
        self.folder, self.title = folder, title
        self.path = folder / "metrics.jsonl"
        self._drop_lines_after(start_step)
        self._handle: IO[str] | None = None
        self._board = _open_tensorboard(folder) if tensorboard else None
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[figures]}"),
            console=Console(stderr=True),
            disable=not sys.stderr.isatty(),
        )
        self._task = self._progress.add_task(title, total=num_steps, completed=start_step, figures="")
        self._started = time.monotonic()

    def __enter__(self) -> "RunLog":
        self._handle = open(self.path, "a", encoding="utf-8")
        self._progress.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._progress.stop()
        if self._handle:
            self._handle.close()
        if self._board:
            self._board.close()

    def advance(self, step: int, *, loss: float, tokens_per_s: float) -> None:
        """Moves the bar; `step` is the number of steps done."""
        self._progress.update(self._task, completed=step, figures=f"loss {loss:.3f}  {tokens_per_s:,.0f} tokens/s")

    def log(self, step: int, metrics: dict[str, Any]) -> None:
        assert self._handle is not None, "use RunLog as a context manager"
        row = {"step": step, "seconds": round(time.monotonic() - self._started, 2), **metrics}
        self._handle.write(json.dumps(row) + "\n")
        self._handle.flush()
        if self._board:
            for name, value in metrics.items():
                if isinstance(value, int | float):
                    self._board.add_scalar(name, value, step)

    def _drop_lines_after(self, step: int) -> None:
        """A resumed run repeats the steps after its checkpoint; their old lines would stand twice."""
        if not self.path.exists():
            return
        lines = self.path.read_text(encoding="utf-8").split("\n")
        kept = [line for line in lines if line.endswith("}") and json.loads(line)["step"] <= step]
        write_text(self.path, "".join(line + "\n" for line in kept))


def _open_tensorboard(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise UserError("TensorBoard is not installed; pip install 'avcap[track]', or set tensorboard=false") from None
    return SummaryWriter(str(folder / "tensorboard"))
