"""What is made of a record of captions: side-cars, tables, subtitles, the list of clips that failed. No torch.

Without a table to be made, the captions of 100,000 clips are gone through one after the other, and not held.
"""

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

from avcap.bulk.clips import Clips, Part
from avcap.bulk.cut_list import cut_list
from avcap.bulk.filter import columns_of
from avcap.bulk.forms import FORMS
from avcap.bulk.job import FolderJob, Told
from avcap.bulk.long.joined import GAP, parts_of
from avcap.bulk.long.stitch import Stitched
from avcap.bulk.long.toc import table_of_contents
from avcap.bulk.outputs.clips import CaptionedClip, LeftOut, SideCar, Table, json_lines_bytes
from avcap.bulk.outputs.h3 import is_in_form
from avcap.bulk.outputs.subtitles import srt, vtt
from avcap.bulk.places import order_key
from avcap.bulk.subtitles import cues_of
from avcap.bulk.wording import Wording
from avcap.bulk.written import WrittenFiles
from avcap.errors import UserError
from avcap.infer.caption_file import read_rows
from avcap.records import Caption, CaptionError

TOC = ".toc.md"
WRITERS = {"srt": srt, "vtt": vtt}


class Made:
    """Writes the forms of a job, while captions come (`write_side_cars`) and at the end (`settle`)."""

    def __init__(self, job: FolderJob, *, clips: Clips, files: WrittenFiles, told: Told) -> None:
        self.job, self.clips, self.files, self.told = job, clips, files, told
        forms = [FORMS[name] for name in job.forms]
        self.side_cars = [form for form in forms if isinstance(form, SideCar)]
        self.tables = [form for form in forms if isinstance(form, Table)]
        if job.shard is not None:
            told.skipped_tables = tuple(table.file for table in self.tables)
            self.tables = []
        self._expected: dict[str, tuple[Part, list[str]]] = {}
        """Name of a file that was cut -> it, and the keys of its clips."""

    def refuse_external(self) -> None:
        """UserError if a table to be written is there and somebody else's."""
        for table in self.tables:
            if table.is_one_file:
                self.files.refuse_external(table.file)

    def expect(self, whole: Part, parts: Sequence[Part]) -> None:
        """Notes what a file was cut into."""
        self._expected[whole.name] = (whole, [self.clips.key_of_part(part) for part in parts])

    def is_kept(self, part: Part) -> bool:
        """Whether a clip has all its side-cars already, and is to keep them."""
        if not self.job.keep_existing:
            return False
        suffixes = [f".{name}" for name in self.job.subtitles] + [form.suffix for form in self.side_cars]
        stem = part.stem.rpartition("/")[0] if self.job.subtitles and part.interval_s is not None else part.stem
        return bool(suffixes) and all(self.files.is_external(stem + suffix) for suffix in suffixes)

    # --- side-cars ----------------------------------------------------------------------------------------------------

    def write_side_cars(self, caption: Caption) -> None:
        """A caption -> the files beside its clip."""
        if self.job.subtitles or not caption.text.strip():
            return
        for form in self.side_cars:
            clip = self._clip(caption, form.wording(self.job.wording))
            if clip is None or self.clips.first_of_stem.get(clip.stem, clip.name) != clip.name:
                continue
            if not self._passes(caption):
                self.files.remove(clip.stem + form.suffix)  # of a run without the condition
                continue
            self._write(clip.stem + form.suffix, form.render(clip, form.wording(self.job.wording)))

    def _passes(self, caption: Caption) -> bool:
        return self.job.where is None or not self.job.where.reasons(columns_of(caption))

    def _write(self, name: str, text: str) -> None:
        if self.job.keep_existing and self.files.is_external(name):
            return  # it was counted before the captioning
        self.files.write(name, text.encode("utf-8", errors="replace"))

    def _clip(self, caption: Caption, wording: Wording) -> CaptionedClip | None:
        """A caption -> its clip; None: its file is not below the root."""
        part = self.clips.by_key.get(self.clips.key_of(caption))
        try:
            name = self.job.root.relative(caption.video) if part is None else part.name
        except UserError:
            return None
        caption = replace(caption, text=_clean(caption.text))
        path = caption.video
        if part is not None:  # a part of a file is named where it is to be cut out to
            path = part.item.video if part.has_own_file else os.path.join(self.job.out, name)
        return CaptionedClip(path=os.path.abspath(path), name=name, text=wording.apply(caption.text), caption=caption)

    # --- at the end ---------------------------------------------------------------------------------------------------

    def settle(self) -> None:
        """The record -> everything that is made of it; what is there and the same is not touched."""
        captioned: set[str] = set()
        failed: list[CaptionError] = []
        kept: dict[str, Caption] = {}
        for row in read_rows(self.job.record):
            if isinstance(row, CaptionError):
                failed.append(row)
                continue
            key = self.clips.key_of(row)
            captioned.add(key)
            is_kept = self.tables or self.job.subtitles or self.job.num_samples is not None
            if is_kept or (self.job.toc and self.job.cutter is not None):
                kept[key] = row
            if not self.job.subtitles and key in self.clips.by_key:
                self._settle_one(row, self.clips.by_key[key])
        failed = [row for row in failed if self.clips.key_of(row) not in captioned]
        self._quarantine(failed)
        if self.job.subtitles:
            self._write_subtitles(kept, {self.clips.key_of(row) for row in failed})
            return
        if self.job.num_samples is not None:
            self.told.samples = [kept[key] for key in self.clips.by_key if key in kept]
        self._write_cut_list(captioned)
        if self.job.toc:
            self._write_contents(kept)
        self._write_tables(kept)

    def _settle_one(self, caption: Caption, part: Part) -> None:
        told = self.told
        told.num_truncated += not caption.finished
        told.num_filtered += not self._passes(caption)
        told.num_empty += not caption.text.strip()
        if caption.windows:
            parts = parts_of(caption)
            told.num_long += 1
            told.num_doubled += sum(one.num_doubled for one in parts)
            told.num_with_gaps += any(note.startswith(GAP) for note in caption.seen.notes)
        first = self.clips.owner_of_stem(part)
        if self.job.toc and self.job.cutter is None and first == part.name:
            whole = [Stitched(start_s=0.0, end_s=caption.duration_s, text=caption.text)]
            self._write(f"{part.stem}{TOC}", table_of_contents(part.name, parts if caption.windows else whole))
        if self.side_cars and first != part.name:
            reason = f"{part.stem}{self.side_cars[0].suffix} is that of {first}"
            told.left_out.append(LeftOut(name=part.name, reason=reason))
        else:
            self.write_side_cars(caption)
        if "h3" in self.job.forms and (clip := self._clip(caption, self.job.wording)) is not None:
            told.num_put_into_form += not is_in_form(clip)

    def _write_contents(self, captions: dict[str, Caption]) -> None:
        """A table of contents for each file that was cut into clips."""
        for whole, keys in self._expected.values():
            parts = [
                Stitched(start_s=span_s[0], end_s=span_s[1], text=captions[key].text)
                for key in keys
                if key in captions and (span_s := self.clips.by_key[key].span_s) is not None
            ]
            if parts and self.clips.owner_of_stem(whole) == whole.name:
                self._write(f"{whole.stem}{TOC}", table_of_contents(whole.name, parts))

    def _write_cut_list(self, captioned: set[str]) -> None:
        """clips.csv: which part of which file each clip is, so that it can be cut out."""
        parts = [part for key, part in self.clips.by_key.items() if part.span_s is not None and key in captioned]
        if parts and self.job.shard is None:
            self.files.write("clips.csv", cut_list(parts))

    def _write_tables(self, captions: dict[str, Caption]) -> None:
        asked = [one for key, one in captions.items() if self._is_asked(key, one)] if self.tables else []
        for table in self.tables:
            wording = table.wording(self.job.wording)
            good = [caption for caption in asked if caption.text.strip() and self._passes(caption)]
            found = [self._clip(caption, wording) for caption in good]
            clips = [clip for clip in found if clip is not None and self._is_there(clip)]
            self.told.num_gone = len(found) - len(clips)
            made = table.make(sorted(clips, key=lambda clip: order_key(clip.name)), self.job.out, self.job.root)
            self.told.left_out += made.left_out
            for name, content in made.files.items():
                if isinstance(content, bytes):
                    self.files.write(name, content)
                else:
                    self.files.write_by(name, content)

    def _is_asked(self, key: str, caption: Caption) -> bool:
        """Whether a caption is of this run's clips, or of a clip of a run before that was asked about likewise."""
        if key in self.clips.by_key or self.job.cutter is not None:
            return key in self.clips.by_key
        part = self.job.request.sample("").sample_id  # "#t=3,7" of a part of each clip
        return key.removeprefix(self.clips.key(caption.video, caption.video)) == part

    def _is_there(self, clip: CaptionedClip) -> bool:
        part = self.clips.by_key.get(self.clips.key_of(clip.caption))
        return os.path.isfile(clip.path if part is None else part.item.file)

    def _write_subtitles(self, captions: dict[str, Caption], failed: set[str]) -> None:
        """Of each file of which every interval was asked about."""
        tried = failed | captions.keys()
        for whole, keys in self._expected.values():
            if not keys or not set(keys) <= tried or not (some := [captions[key] for key in keys if key in captions]):
                continue
            self.told.num_truncated += sum(not caption.finished for caption in some)
            self.told.samples += some if self.job.num_samples is not None else []
            if (first := self.clips.owner_of_stem(whole)) != whole.name:
                reason = f"its subtitles would take the place of those of {first}"
                self.told.left_out.append(LeftOut(name=whole.name, reason=reason))
                continue
            cues = cues_of([replace(caption, text=_clean(caption.text)) for caption in some])
            for name in self.job.subtitles:
                self._write(f"{whole.stem}.{name}", WRITERS[name](cues))

    def _quarantine(self, failed: Sequence[CaptionError]) -> None:
        """Clips without a caption, and why; a list that was there and has become empty is written empty."""
        name = self.job.file("quarantine.jsonl").name
        if self.job.subtitles:
            name = self.job.file("quarantine.intervals.jsonl").name
        if failed or self.files.is_ours(name):
            rows = sorted(failed, key=lambda row: (order_key(row.video), row.sample_id))
            before = self.files.tally.num_written
            self.files.write(name, json_lines_bytes(vars(row) for row in rows))
            self.files.tally.num_written = before  # it is no file of captions


_CONTROLS = {code: " " for code in (*range(9), *range(11, 13), *range(14, 32), 127, 0xFEFF)}


def _clean(text: str) -> str:
    """A model's text -> without what no text file should hold: controls, halves of characters."""
    return text.translate(_CONTROLS).replace("\r\n", "\n").encode("utf-8", errors="replace").decode()


def count_reasons(left_out: Iterable[LeftOut]) -> Counter[str]:
    """What was left out -> how often for which reason."""
    return Counter(one.reason for one in left_out)
