"""Figures of metrics.json files in TensorBoard's and W&B's own files."""

import json
import os
import subprocess
import sys

import pytest

from avcap.errors import UserError
from avcap.web.tracking import log_to_tensorboard, log_to_wandb, read_scalars

METRICS = {
    "global": {"missing_rate": {"value": 0.25, "low": 0.2, "high": None}, "num_events": 8},
    "verdict": "The model uses the sound",
    "uses_audio": True,
    "unanswered": {"q1": "gone"},
    "nothing": None,
}
SCALARS = {"global/missing_rate/value": 0.25, "global/missing_rate/low": 0.2, "global/num_events": 8.0}


def test_numbers_are_named_by_their_place(tmp_path):
    (tmp_path / "metrics.json").write_text(json.dumps(METRICS))
    assert read_scalars(tmp_path / "metrics.json") == SCALARS  # no text, no null, no truth value


@pytest.mark.parametrize(("text", "message"), [("{", "cannot be read as JSON"), ('{"a": "b"}', "without a number")])
def test_what_is_no_metrics_file_is_an_error(tmp_path, text, message):
    (tmp_path / "metrics.json").write_text(text)
    with pytest.raises(UserError, match=message):
        read_scalars(tmp_path / "metrics.json")
    with pytest.raises(UserError, match="No such file"):
        read_scalars(tmp_path / "gone.json")


def test_tensorboard_reads_what_was_logged(tmp_path):
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="tensorboard is an extra"
    )
    log_to_tensorboard([SCALARS, SCALARS | {"global/num_events": 9.0}], folder=tmp_path)
    found = accumulator.EventAccumulator(str(tmp_path)).Reload()
    assert set(found.Tags()["scalars"]) == set(SCALARS)
    assert [(event.step, event.value) for event in found.Scalars("global/num_events")] == [(0, 8.0), (1, 9.0)]


def test_wandb_keeps_an_offline_run(tmp_path):
    pytest.importorskip("wandb", reason="wandb is an extra")
    code = (
        "import sys; from pathlib import Path; from avcap.web.tracking import log_to_wandb;"
        f"log_to_wandb([{SCALARS!r}], folder=Path(sys.argv[1]), name='n', project='p')"
    )
    environment = os.environ | {"WANDB_MODE": "offline", "WANDB_SILENT": "true", "HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (run,) = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    assert b"global/num_events" in run.read_bytes()


def test_a_tracker_that_is_not_installed_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match=r"pip install 'avcap\[track\]'"):
        log_to_wandb([SCALARS], folder=tmp_path, name="n", project="p")
