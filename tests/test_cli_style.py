"""`--style` and `--language` as a user has them: a real server, real videos, and a model that follows no prompts."""

import json

import pytest
from support.scripted_engine import VLLM, ScriptedEngine

from avcap.infer.caption_file import read_rows

GOOD = (
    "A red square glides over a black field while a bell rings twice, and a voice says, "
    '"Where is it?" The square stops in the corner, grows slowly, and turns green as rain begins to fall. '
) * 2


@pytest.fixture
def clips(videos, tmp_path):
    folder = tmp_path / "clips"
    folder.mkdir()
    for name in ("a", "b"):
        (folder / f"{name}.mp4").hardlink_to(videos / f"{name}.mp4")
    return folder


def test_an_engine_is_asked_for_a_form_and_once_more(clips, tmp_path, run):
    with ScriptedEngine(VLLM, answer=lambda asked: GOOD if "An earlier answer" in asked.text else "- a list") as engine:
        words = ("caption", clips, "--model", engine.model, "--out", tmp_path / "o", "--style", "prose")
        code, _, err = run(*words, "--language", "en")
        assert code == 0, err
        assert len(engine.captions) == 4  # two videos, twice
        assert "Write in English" in engine.captions[0].text
        assert run(*words, "--language", "en")[0] == 0 and len(engine.captions) == 4  # all is there
        rows = list(read_rows(tmp_path / "o" / "captions.jsonl"))
        assert [(row.style, row.broken_rules, row.asked_again) for row in rows] == [("prose", (), True)] * 2
        assert run("filter", tmp_path / "o", "--where", "in_form and asked_again")[2].count("2 captions kept") == 1
        run("filter", tmp_path / "o", "--where", "not in_form")
        dropped = [json.loads(line)["reasons"] for line in (tmp_path / "o" / "dropped.jsonl").read_text().splitlines()]
        assert dropped == [["not in_form is not true: in_form is true"]] * 2


def test_a_model_of_one_world_is_only_checked(clips, tmp_path, run):
    code, _, err = run("caption", clips, "--out", tmp_path / "o", "--style", "ltx")
    assert code == 0, err
    rows = list(read_rows(tmp_path / "o" / "captions.jsonl"))
    assert all("no clock" in row.broken_rules and not row.asked_again for row in rows)  # "At 1s a green square ..."


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--language", "de"), "got --language de without --style"),
        (("--style", "ltx", "--prompt", "Tell."), "got --style ltx and --prompt"),
        (("--style", "ltx", "--format", "srt", "--out", "o/"), "got --style ltx and --format srt"),
        (("--style", "novel"), "got --style novel"),
        (("--style", "subtitles", "--no-audio"), "got --style subtitles and --no-audio"),
    ],
)
def test_options_that_do_not_go_together(words, told, run):
    code, _, err = run("caption", "a.mp4", *words)
    assert code == 2 and told in err
