"""The class that batches of files are given to: a row for each file, whatever is wrong with one of them."""

import pickle
from dataclasses import dataclass, field

import numpy as np
import pytest
from support.bulk_model import Model, caption_of

from avcap.bulk.workers import Captions, Opening
from avcap.captioners import find_source
from avcap.data.request import Request
from avcap.errors import RunError
from avcap.infer.caption_file import read_row
from avcap.records import Caption, CaptionError, Decoding, to_json

REQUEST = Request(decoding=Decoding(max_new_tokens=9))


class Scripted:
    """A captioner that raises what `broken` says when it comes to a file of that name; it asks two at a time."""

    def __init__(self, broken: dict[str, Exception]) -> None:
        self.broken, self.model = broken, Model(bad=("bad.mp4",))

    def stream(self, samples, request):
        for first in range(0, len(samples), 2):
            rows = list(self.model(samples[first : first + 2]))
            for row in rows:
                if row.video in self.broken:
                    raise self.broken[row.video]
            yield from rows


@dataclass(frozen=True, kw_only=True)
class Given(Opening):
    captioner: Scripted = field(default_factory=lambda: Scripted({}))

    def open(self, source):
        return self.captioner


def captions(broken: dict[str, Exception] | None = None) -> Captions:
    return Captions(request=REQUEST, opening=Given(model="tiny", captioner=Scripted(broken or {})))


def test_paths_in_records_out():
    batch = captions()({"path": np.array(["a.mp4", "bad.mp4"], dtype=object)})
    assert batch["path"] == ["a.mp4", "bad.mp4"]
    assert batch["text"] == ["The a.mp4.", ""] and batch["error"] == ["", "bad.mp4: is no video"]
    rows = [read_row(line, where="test") for line in batch["record"]]
    # an empty text, not None: a column of nothing but None has no type, and parquet files of two blocks would differ
    assert rows == [caption_of("a.mp4", "The a.mp4."), CaptionError(**vars(rows[1]))]


def test_samples_keep_their_parts():
    asked = Request(decoding=REQUEST.decoding, interval_s=(1.0, 2.0)).sample("a.mp4")
    (line,) = captions()({"sample": [to_json(asked)]})["record"]
    assert read_row(line, where="test").sample_id == "a.mp4#t=1,2"


def test_what_nobody_foresaw_is_a_row_of_its_file_alone():
    names = ["a.mp4", "b.mp4", "c.mp4", "d.mp4", "e.mp4"]
    rows = captions({"c.mp4": RuntimeError("no kernel")})({"path": names})
    assert rows["path"] == names
    assert rows["error"] == ["", "", "c.mp4: RuntimeError: no kernel", "", ""]


def test_what_every_file_would_meet_is_raised():
    with pytest.raises(RunError, match="is gone"):
        captions({"b.mp4": RunError("the engine is gone")})({"path": ["a.mp4", "b.mp4"]})


def test_names_that_are_no_utf_8_come_back_as_they_were():
    name = b"a\xff.mp4".decode("utf-8", "surrogateescape")
    batch = captions()({"path": [name]})
    assert [text.encode() for column in ("path", "text", "record") for text in batch[column]]  # Arrow takes no other
    assert read_row(batch["record"][0], where="test").video == name


def test_an_opening_is_sent_to_other_processes():
    opening = Opening(model="tiny", weights={"batch_size": 2, "dtype": "float32"})
    assert pickle.loads(pickle.dumps(opening)) == opening


def test_a_model_that_runs_in_the_worker(random_checkpoint, videos):
    opening = Opening(model=str(random_checkpoint), weights={"dtype": "float32", "batch_size": 1})
    made = Captions(request=REQUEST, opening=opening)
    (row,) = made.rows([REQUEST.sample(str(videos / "a.mp4"))])
    assert isinstance(row, Caption) and row.checkpoint == find_source(random_checkpoint).name
