"""The shipped model is found to use the sound, and a copy of it with nothing in its audio tokens is caught."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import save_file

from avcap import Captioner
from avcap.errors import UserError
from avcap.evaluation.audit_audio import audit_audio, cut
from avcap.infer.find_checkpoint import find_checkpoint
from avcap.judge.metrics.audio_ablation import ANSWERS, AUDIO, AUDIO_LOCAL, CHANGED, CONDITIONS, AuditClip, AuditText
from avcap.media.load import load_clip
from avcap.model.average import read_weights
from avcap.records import WorldTruth, read_jsonl

EXAMPLES = Path(__file__).parents[2] / "examples"
# one interval each: what a model is asked about a clip, it is asked four times
CLIPS = [
    AuditClip(video=str(EXAMPLES / truth.video), truth=replace(truth, intervals=truth.intervals[:1]))
    for truth in read_jsonl(EXAMPLES / "truth.jsonl", WorldTruth)
]
SIDE = 48


@pytest.fixture(scope="module")
def checkpoint_without_audio(tmp_path_factory) -> Path:
    """tiny-base, but all audio tokens are zeros before their time and place are added."""
    folder = tmp_path_factory.mktemp("deaf") / "deaf"
    shutil.copytree(find_checkpoint("tiny-base"), folder)
    tensors = read_weights(folder / "model.safetensors")
    names = ("audio_aligner.norm.weight", "audio_aligner.norm.bias")
    zeroed = {name: tensors[name] * 0 for name in names}
    save_file(tensors | zeroed, folder / "model.safetensors", metadata={"format": "pt"})
    # it would babble on to the last token: as many as its first sentences have tell as much
    settings = json.loads((folder / "avcap.json").read_text())
    (folder / "avcap.json").write_text(json.dumps(settings | {"max_new_tokens": 64}))
    return folder


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_tiny_model_uses_the_audio(tmp_path):
    audit = audit_audio(Captioner("tiny-base"), CLIPS, out_dir=tmp_path)
    assert audit.uses_audio and audit.num_clips == len(CLIPS) and not audit.errors
    assert audit.verdict.startswith("The model uses the sound: of ")
    assert audit.figures[AUDIO_LOCAL]["audio"].value > 0.8
    assert audit.figures[AUDIO_LOCAL]["mute"].value == 0.0
    assert audit.figures[AUDIO]["no_video"].value > 0.8  # sound alone tells it what is heard
    texts = list(read_jsonl(tmp_path / "texts.jsonl", AuditText))
    per_clip = [1 + len(clip.truth.questions) + len(clip.truth.intervals) for clip in CLIPS]
    assert len(texts) == len(CONDITIONS) * sum(per_clip)
    assert json.loads((tmp_path / "metrics.json").read_text())["verdict"] == audit.verdict


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_model_with_nothing_in_its_audio_tokens_is_caught(checkpoint_without_audio, tmp_path):
    # what is equal word for word is so in two clips as in four
    audit = audit_audio(Captioner(checkpoint_without_audio), CLIPS[:2], out_dir=tmp_path)
    assert not audit.uses_audio and audit.verdict.startswith("The model does NOT use the sound: of ")
    for condition in ("mute", "swapped"):
        assert audit.figures[CHANGED][condition].value == 1.0  # word for word as with sound
        assert audit.losses[ANSWERS][condition].value == audit.losses[AUDIO][condition].value == 0.0
    assert audit.figures[CHANGED]["no_video"].value < 0.5  # while it does look


@pytest.mark.slow
def test_any_folder_of_videos_can_be_audited(random_checkpoint, videos, tmp_path):
    clips = [AuditClip(video=str(videos / name)) for name in ("a.mp4", "silent.mp4", "b.mp4", "audio.m4a", "c.mp4")]
    done = []
    audit = audit_audio(Captioner(random_checkpoint), clips, out_dir=tmp_path, progress=done.append)
    assert list(audit.figures) == [CHANGED] and audit.num_clips == 3 and done == [1, 2, 3, 4, 5]
    assert [Path(error.video).name for error in audit.errors] == ["silent.mp4", "audio.m4a"]
    assert all("without a picture or without sound" in error.error for error in audit.errors)
    # random weights react to anything: silence, other words
    assert audit.losses[CHANGED]["mute"].value == 1.0 and "of its texts, 100.0 points" in audit.verdict


def test_one_clip_alone_has_no_other_audio(random_checkpoint, videos, tmp_path):
    clips = [AuditClip(video=str(videos / name)) for name in ("a.mp4", "silent.mp4")]
    with pytest.raises(UserError, match=r"got 1 usable clips, expected at least 2.*silent"):
        audit_audio(Captioner(random_checkpoint), clips, out_dir=tmp_path)


def test_a_part_that_is_cut_is_what_decoding_the_part_gives(videos):
    whole = load_clip(videos / "c.mp4", frame_size=(SIDE, SIDE))
    part = load_clip(videos / "c.mp4", frame_size=(SIDE, SIDE), interval_s=(1, 3), lead_in=True)
    found = cut(whole, interval_s=(1.0, 3.0), lead_in=True)
    for name in ("frames_THWC", "frame_times_T", "lead_in_frame_HWC"):
        np.testing.assert_array_equal(getattr(found, name), getattr(part, name), err_msg=name)
    assert (found.start_s, found.end_s) == (part.start_s, part.end_s)
    # sample by sample it may not be: the codec fills noise in anew whenever it decodes
    assert len(found.waveform_S) == len(part.waveform_S) == 2 * 16000
    np.testing.assert_array_equal(found.waveform_S, whole.waveform_S[16000 : 3 * 16000])
    from_start = cut(whole, interval_s=(0.0, 2.0), lead_in=True)
    assert from_start.lead_in_frame_HWC is None and len(from_start.frames_THWC) == 2
