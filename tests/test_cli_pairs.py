"""`avcap pairs` as a user has it: captions of a world's clips, judged by its oracle, to pairs and to other trainers."""

from pathlib import Path

import pytest

from avcap.cli.app import command_line
from avcap.errors import UserError
from avcap.infer.caption_file import read_rows
from avcap.records import Caption, CaptionError, Decoding, PreferencePair, Seen, WorldTruth, read_jsonl, write_jsonl
from avcap.world.oracle import judge_caption

EXAMPLES = Path(__file__).parent.parent / "examples"


def avcap(*arguments: object) -> None:
    """Runs a command in this process; a UserError comes through."""
    import avcap.cli  # noqa: F401  (registers the commands)

    command_line()(["pairs", *map(str, arguments)], prog_name="avcap", standalone_mode=False)


@pytest.fixture(scope="module")
def truths() -> list[WorldTruth]:
    return list(read_jsonl(EXAMPLES / "truth.jsonl", WorldTruth))


def caption(truth: WorldTruth, text: str, *, seed: int) -> Caption:
    # as `avcap caption` names it: by the path that was given
    return Caption(
        caption_id=f"{truth.clip_id}-{seed}",
        sample_id=f"examples/{truth.video}",
        video=f"examples/{truth.video}",
        prompt="Describe the video in detail.",
        text=text,
        checkpoint="tiny@1",
        finished=True,
        duration_s=10.0,
        decoding=Decoding(max_new_tokens=99, temperature=0.7, seed=seed),
        seen=Seen(frames=10, audio_seconds=10.0, visual_tokens=60, audio_tokens=20),
    )


@pytest.fixture
def captions(tmp_path, truths) -> list[Path]:
    """Two files, as two runs with different seeds leave them: all that happens, and all but the last sentence."""
    paths = [tmp_path / "seed0.jsonl", tmp_path / "seed1.jsonl"]
    full = [caption(truth, truth.reference_caption, seed=0) for truth in truths]
    short = [caption(truth, truth.reference_caption.rsplit(" At ", 1)[0], seed=1) for truth in truths]
    write_jsonl(paths[0], full)
    write_jsonl(paths[1], [*short, CaptionError(sample_id="x.mp4", video="x.mp4", error="0 frames")])
    return paths


def test_captions_become_pairs_and_go_out_and_come_back(captions, truths, tmp_path, capsys):
    out = tmp_path / "pairs.jsonl"
    avcap("build", *captions, "--truth", EXAMPLES, "--out", out, "--set", "min_gap=0.01")
    printed = capsys.readouterr()
    pairs = list(read_jsonl(out, PreferencePair))
    assert [pair.sample_id for pair in pairs] == [truth.clip_id for truth in truths]
    assert all(pair.chosen == pair.reference_caption and pair.judge == "oracle" for pair in pairs)
    assert f"pairs      {len(truths)} (minimal); {len(truths)} global, 0 local" in printed.out
    assert "1 rows have an error instead of a caption" in printed.err

    avcap("show", out, "-n", 1)
    shown = capsys.readouterr().out
    last = truths[0].reference_caption.rsplit(" At ", 1)[1].split(" ", 1)[1].rstrip(".")
    assert "+ 0 missing" in shown and "- " in shown
    assert last.split(" while ")[0] in shown  # what only the chosen one says

    avcap("export", out, "--to", "ms-swift", "--out", tmp_path / "swift.jsonl")
    avcap("import", tmp_path / "swift.jsonl", "--from", "ms-swift", "--out", tmp_path / "back.jsonl")
    assert (tmp_path / "back.jsonl").read_text() == out.read_text()
    assert f"{len(truths)} pairs written: {tmp_path / 'back.jsonl'}" in capsys.readouterr().err


def test_verdicts_that_are_there_are_used(captions, truths, tmp_path):
    truth_of = {f"examples/{truth.video}": truth for truth in truths}
    written = [row for path in captions for row in read_rows(path) if isinstance(row, Caption)]
    judged = (judge_caption(one.text, truth=truth_of[one.video], caption_id=one.caption_id) for one in written)
    write_jsonl(tmp_path / "verdicts.jsonl", judged)
    arguments = ("build", *captions, "--truth", EXAMPLES, "--set", "min_gap=0.01")
    avcap(*arguments, "--out", tmp_path / "a.jsonl")
    avcap(*arguments, "--out", tmp_path / "b.jsonl", "--verdicts", tmp_path / "verdicts.jsonl")
    assert (tmp_path / "a.jsonl").read_text() == (tmp_path / "b.jsonl").read_text()


@pytest.mark.parametrize(
    "more, message",
    [
        (("--set", "min_gap=2.5"), "no pair is left of .* prompts .*margin below min_gap"),
        (("--set", "min_gab=0"), "unknown field 'min_gab'; nearest is 'min_gap'"),
        (("--rule", "worst"), "rule: got 'worst', expected one of 'minimal', 'best_vs_worst'"),
        (("--verdicts", "v.jsonl", "--calibration", "c.json"), "got --calibration and --verdicts"),
        (("--judge", "gpt"), "got --judge gpt"),
    ],
)
def test_what_cannot_be_done_is_said(captions, tmp_path, more, message):
    out = tmp_path / "pairs.jsonl"
    with pytest.raises(UserError, match=message):
        avcap("build", *captions, "--truth", EXAMPLES, "--out", out, *more)
    assert not out.exists()


def test_export_and_import_ask_for_the_flavour(captions, tmp_path):
    with pytest.raises(UserError, match="got no flavour, expected one of trl, ms-swift"):
        avcap("import", captions[0], "--out", tmp_path / "pairs.jsonl")
    avcap("build", *captions, "--truth", EXAMPLES, "--out", tmp_path / "pairs.jsonl", "--set", "min_gap=0.01")
    with pytest.raises(UserError, match="got the flavour 'csv'"):
        avcap("export", tmp_path / "pairs.jsonl", "--to", "csv", "--out", tmp_path / "out")
