"""Each form is read here by the rules of its reader, as its source states them, from the clips' own places."""

import glob
import json
import os
import string
from pathlib import Path

import pytest
from support.bulk_model import Model

from avcap.bulk.forms import FORMS, read_forms
from avcap.bulk.outputs.h3 import FIELDS, read_h3
from avcap.bulk.wording import Wording, one_line, without_openings
from avcap.errors import UserError

TEXTS = {
    "001.mp4": "The video shows a dog.\nIt barks.",
    "é 2.mov": 'A cat says "é, [trigger]".\n\nRain falls.',
    "c.wav": "Wind.",
}


# --- LTX-2: process_dataset.py, process_videos.py and process_captions.py of ltx-trainer ------------------------------


def read_ltx(file: Path) -> dict[str, tuple[str, str]]:
    """Where its latents and its text embeddings go, relative to the outputs -> (video, caption)."""
    data = json.loads(file.read_text(encoding="utf-8"))
    assert isinstance(data, list)
    assert set(data[0]) == {"caption", "video"}  # the columns of the first row are those of all
    found = {}
    for entry in data:
        video = file.parent / Path(entry["video"].strip())
        assert video.is_file(), "one path that is no file, and the reader refuses all"
        try:
            relative = video.relative_to(file.parent)
        except ValueError:
            relative = Path(*video.parts[1:])
        place = os.path.normpath(relative.with_suffix(".pt"))
        assert not place.startswith(".."), "it would be written outside the outputs"
        assert place not in found, "two clips would share one file of latents"
        found[place] = (str(video), entry["caption"])
    return found


def test_ltx_reads_dataset_json_beside_the_clips(fill, clips):
    told = fill(clips, Model(TEXTS), forms=("ltx",))
    rows = read_ltx(clips / "dataset.json")
    assert rows == {
        "a/001.pt": (str(clips / "a/001.mp4"), "The video shows a dog. It barks."),
        "b/001.pt": (str(clips / "b/001.mp4"), "The video shows a dog. It barks."),
        "b/é 2.pt": (str(clips / "b/é 2.mov"), 'A cat says "é, [trigger]". Rain falls.'),
    }
    assert [one.name for one in told.left_out] == ["c.wav"]


def test_ltx_reads_dataset_json_of_another_folder_and_two_of_one_stem(fill, clips, tmp_path):
    (clips / "a/001.mov").write_bytes(b"another of the stem")
    (clips / " spaced.mp4").write_bytes(b"the reader strips paths")
    told = fill(tmp_path / "out", forms=("ltx",))
    rows = read_ltx(tmp_path / "out" / "dataset.json")
    assert {video for video, _ in rows.values()} == {
        str(clips / name) for name in (" spaced.mp4", "a/001.mov", "b/001.mp4", "b/é 2.mov")
    }
    assert [(one.name, "001.mov" in one.reason) for one in told.left_out] == [("c.wav", False), ("a/001.mp4", True)]
    fill(clips, forms=("ltx",))
    assert len(read_ltx(clips / "dataset.json")) == 4


def test_ltx_puts_the_trigger_itself(fill, clips, tmp_path):
    with pytest.raises(UserError, match=r"leave it out, and give process_dataset\.py --lora-trigger sks"):
        fill(tmp_path / "out", forms=("ltx",), wording=Wording(trigger="sks"))


# What --remove-llm-prefixes of ltx-trainer removes.
THINGS = ("This video", "The video", "This clip", "The clip", "The animation", "This image", "The image", "The picture")
VERBS = ("shows", "depicts", "features", "captures", "highlights", "introduces", "presents")
OPENINGS = ("In the video,", "In this video,", "In this video clip,", "In the clip,", "Caption:")


@pytest.mark.parametrize("opening", [*(f"{thing} {verb}" for thing in THINGS for verb in VERBS), *OPENINGS])
def test_openings_are_stripped_as_the_reader_would(opening):
    assert without_openings(f"{opening} a dog that barks.") == "A dog that barks."
    assert without_openings(opening) == opening  # nothing would be left


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("In this video, we see the clip shows nothing", "Nothing"),
        ("The video shows that it rains.", "It rains."),
        ("The videographer shows a dog.", "The videographer shows a dog."),
        ("The video showsroom", "The video showsroom"),
        ("Sure! Here is a detailed description of the video: A dog.", "A dog."),
        ("A video shows a dog.", "A video shows a dog."),
        ("caption: dog", "Dog"),
    ],
)
def test_only_openings_are_stripped(text, expected):
    assert without_openings(text) == expected


def test_one_line_has_no_end_of_a_line_that_any_reader_knows():
    assert one_line("a\nb\r\nc\x0bd\x85e\u2028f  g ") == "a b c d e f g"


# --- musubi-tuner: VideoJsonlDatasource, and get_latent_cache_path ----------------------------------------------------


def read_musubi(file: Path, *, cwd: Path) -> dict[str, str]:
    """Each line is parsed, empty ones too; paths are opened as they stand; caches are named by stems."""
    data = [json.loads(line) for line in file.read_text(encoding="utf-8").split("\n")[:-1]]
    stems = [os.path.splitext(os.path.basename(item["video_path"]))[0] for item in data]
    assert len(set(stems)) == len(stems), "two clips would share one cache"
    assert all((cwd / item["video_path"]).is_file() for item in data)
    return {item["video_path"]: item["caption"] for item in data}


def test_musubi_reads_its_jsonl_and_no_two_clips_share_a_cache(fill, clips, tmp_path):
    fill(tmp_path / "out", Model(TEXTS), forms=("musubi",))
    first = read_musubi(tmp_path / "out/musubi.jsonl", cwd=Path("/nowhere"))
    assert first == {str(clips / "a/001.mp4"): TEXTS["001.mp4"], str(clips / "b/é 2.mov"): TEXTS["é 2.mov"]}
    second = read_musubi(tmp_path / "out/musubi.2.jsonl", cwd=Path("/nowhere"))
    assert second == {str(clips / "b/001.mp4"): TEXTS["001.mp4"]}


def test_musubi_reads_paths_from_where_the_trainer_is_started(fill, clips, tmp_path):
    fill(tmp_path / "out", forms=("musubi",), relative_to=tmp_path)
    assert set(read_musubi(tmp_path / "out/musubi.jsonl", cwd=tmp_path)) == {"clips/a/001.mp4", "clips/b/é 2.mov"}


def test_musubi_reads_side_cars(fill, clips):
    """VideoDirectoryDatasource with caption_extension ".txt": it opens one for each video, and strips it."""
    fill(clips, Model(TEXTS))
    for video in glob.glob(str(clips / "*" / "*.m*")):
        text = Path(os.path.splitext(video)[0] + ".txt").read_text(encoding="utf-8").strip()
        assert text == TEXTS[os.path.basename(video)]


# --- diffusion-pipe: utils/dataset.py ---------------------------------------------------------------------------------


def read_diffusion_pipe(folder: Path) -> dict[str, list[str]]:
    """One folder, not those below; keys are file names, values lists, read in the machine's encoding (here ASCII)."""
    captions = json.loads((folder / "captions.json").read_bytes().decode("ascii"))
    files = [file for file in sorted(folder.glob("*")) if file.is_file()]
    media = [file for file in files if file.suffix in (".mp4", ".mov")]
    assert all(isinstance(value, list) for value in captions.values())
    assert set(captions) == {str(file).split("/")[-1] for file in media}
    return captions


def test_diffusion_pipe_reads_a_captions_json_in_each_folder(fill, clips):
    fill(clips, Model(TEXTS), forms=("diffusion-pipe",))
    assert read_diffusion_pipe(clips / "a") == {"001.mp4": [TEXTS["001.mp4"]]}
    assert read_diffusion_pipe(clips / "b") == {"001.mp4": [TEXTS["001.mp4"]], "é 2.mov": [TEXTS["é 2.mov"]]}
    assert not (clips / "captions.json").exists()  # its only clip is an audio file


# --- ai-toolkit: CaptionProcessingDTOMixin.load_caption and inject_trigger_into_prompt --------------------------------


def read_ai_toolkit(video: Path, *, trigger: str | None) -> str:
    text = (video.parent / (os.path.splitext(video.name)[0] + ".txt")).read_text(encoding="utf-8")
    caption = ", ".join(text.split(","))
    for word in ("[name]", "[trigger]"):
        caption = caption.replace(word, trigger or "")
    return f"{trigger} {caption}" if trigger and trigger not in caption else caption


def test_ai_toolkit_reads_side_cars_and_has_the_trigger_once(fill, clips):
    fill(clips, Model({"001.mp4": "A dog barks."}), forms=("ai-toolkit",), wording=Wording(trigger=" sks "))
    assert read_ai_toolkit(clips / "a/001.mp4", trigger="sks") == "sks A dog barks."
    assert read_ai_toolkit(clips / "a/001.mp4", trigger=None) == "sks A dog barks."


# --- SimpleTuner: PromptHandler.prepare_instance_prompt_from_textfile -------------------------------------------------


def read_simpletuner(video: Path) -> list[str]:
    text = Path(os.path.splitext(video)[0] + ".txt").read_bytes().decode("utf-8")
    return [line for line in text.split("\n") if line]


def test_simpletuner_reads_one_caption_of_each_clip(fill, clips):
    fill(clips, Model(TEXTS), forms=("simpletuner",), wording=Wording(strip_openings=True, trigger="sks"))
    assert read_simpletuner(clips / "a/001.mp4") == ["sks A dog. It barks."]
    assert read_simpletuner(clips / "b/é 2.mov") == ['sks A cat says "é, [trigger]". Rain falls.']


# --- metadata: folder_based_builder of datasets -----------------------------------------------------------------


def read_metadata(file: Path) -> dict[str, str]:
    """`file_name` is a relative path without "://", and leads to a file below the folder of metadata.jsonl."""
    found = {}
    for line in file.read_bytes().decode("utf-8").splitlines():
        row = json.loads(line)
        json.dumps(row).encode("ascii").decode()
        name = row["file_name"]
        normal = os.path.normpath(name).replace("\\", "/")
        assert "://" not in name and not os.path.isabs(normal) and not normal.startswith("..")
        assert (file.parent / normal).is_file()
        found[name] = row["caption"]
    return found


def test_datasets_reads_metadata_jsonl(fill, clips):
    (clips / "b\\c.mp4").write_bytes(b"a name that it would take for a path")
    told = fill(clips, Model(TEXTS), forms=("metadata",))
    assert read_metadata(clips / "metadata.jsonl") == {
        "a/001.mp4": TEXTS["001.mp4"],
        "b/001.mp4": TEXTS["001.mp4"],
        "b/é 2.mov": TEXTS["é 2.mov"],
        "c.wav": "Wind.",
    }
    assert [one.name for one in told.left_out] == ["b\\c.mp4"]


# --- MiniMax H3 -------------------------------------------------------------------------------------------------------

H3 = (
    "integrated_multimodal_description: [Shot 1] Live-action. A dog. "
    "[Shot 2] At 00:03.500, the camera cuts to a cat.\n\n"
    "overall_soundscape: Barking.\n\nnon_diegetic_music: N/A"
)


def h3_fields(text: str) -> dict[str, str]:
    """Three lines, each a name and its text."""
    lines = text.split("\n")
    assert len(lines) == 3
    found = dict(line.split(": ", 1) for line in lines)
    assert tuple(found) == FIELDS and found[FIELDS[0]].startswith("[Shot 1] ")
    return found


def test_h3_keeps_what_a_model_gave_in_its_form(fill, clips):
    told = fill(clips, Model({"001.mp4": H3}), forms=("h3",), wording=Wording(trigger="sks"))
    fields = h3_fields((clips / "a/001.txt").read_text())
    assert fields["integrated_multimodal_description"].startswith(
        "[Shot 1] sks Live-action. A dog. [Shot 2] At 00:03.5"
    )
    assert (fields["overall_soundscape"], fields["non_diegetic_music"]) == ("Barking.", "N/A")
    assert told.num_put_into_form == 2  # é 2.mov and c.wav say something else


def test_h3_is_made_of_prose_and_that_is_said(fill, clips):
    text = 'A dog runs. A bell rings. A man says "the bell". Soft background music plays.\nThe end.'
    told = fill(clips, Model({"001.mp4": text}), forms=("h3",))
    assert h3_fields((clips / "a/001.txt").read_text()) == {
        "integrated_multimodal_description": f"[Shot 1] {one_line(text)}",
        "overall_soundscape": "A bell rings.",
        "non_diegetic_music": "Soft background music plays.",
    }
    assert told.num_put_into_form == 4


@pytest.mark.parametrize(
    "wrong",
    [
        H3.replace("[Shot 1] ", ""),
        H3.replace("Shot 2", "Shot 3"),
        H3.replace("00:03.500", "00:13.500"),  # the clip lasts 10 s
        H3.replace("At 00:03.500, ", ""),
        H3.replace("Barking.", ""),
        H3.replace("overall_soundscape", "soundscape"),
        f"Here it is:\n{H3}",
        H3.replace("a cat.", "a cat. [Shot 3] At 00:02.000, the camera cuts to a bird."),
    ],
)
def test_h3_sees_what_is_not_its_form(wrong):
    assert read_h3(H3, duration_s=10.0) is not None
    assert read_h3(wrong, duration_s=10.0) is None
    assert read_h3(H3.replace("overall_soundscape:", "**overall_soundscape:**"), duration_s=10.0) is not None


# --- parquet ----------------------------------------------------------------------------------------------------------


def test_parquet_has_a_row_and_typed_columns_for_each_clip(fill, clips, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    fill(tmp_path / "out", Model({"001.mp4": "one two three four five one two three four five"}), forms=("parquet",))
    table = parquet.read_table(tmp_path / "out" / "captions.parquet")
    rows = {row["file_name"]: row for row in table.to_pylist()}
    assert list(rows) == ["c.wav", "a/001.mp4", "b/001.mp4", "b/é 2.mov"]
    # 10 words; the second five repeat the first run of five: 5 / 10
    assert rows["a/001.mp4"]["repetition"] == 0.5 and rows["c.wav"]["repetition"] == 0.0
    assert rows["a/001.mp4"]["video"] == str(clips / "a/001.mp4") and rows["a/001.mp4"]["world_score"] is None
    types = {field.name: str(field.type) for field in table.schema}
    assert types["world_score"] == "double" and types["audio_confirmed"] == "bool" and types["frames"] == "int64"


# --- all of them ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in FORMS if name != "parquet"])
def test_every_form_takes_any_text_and_gives_the_same_again(name, fill, clips):
    text = f"\ufeffA\0b \ud800 {string.printable} é\u2028z"
    fill(clips, Model({"001.mp4": text}), forms=(name,))
    files = [path for path in clips.rglob("*") if path.suffix in (".txt", ".json", ".jsonl")]
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in files}
    for data, _ in before.values():
        assert b"\0" not in data.decode("utf-8").encode()
    told = fill(clips, Model(), forms=(name,))
    assert told.num_written == told.num_new == 0
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in files} == before


@pytest.mark.parametrize("name", FORMS)
def test_every_form_takes_names_that_are_no_text(name, fill, clips):
    """A byte that no UTF-8 begins with: it is written as JSON writes it, or left out with its reason."""
    if name == "parquet":
        pytest.importorskip("pyarrow.parquet")
    (clips / "\udcff [x].mp4").write_bytes(b"odd")
    told = fill(clips, forms=(name,))
    assert told.num_new == 5
    left_out = [one.name for one in told.left_out]
    assert ("\udcff [x].mp4" in left_out) is (name == "metadata")
    assert fill(clips, forms=(name,)).num_written == 0


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["gif"], "got --format gif, expected one of txt, ltx"),
        (["txt", "srt"], "one is of whole clips, the other of intervals"),
        (["txt", "h3"], "which write the same side-cars"),
    ],
)
def test_formats_that_cannot_be(names, message):
    with pytest.raises(UserError, match=message):
        read_forms(names)
    assert read_forms([]) == (["txt"], []) and read_forms(["srt", "vtt", "srt"]) == ([], ["srt", "vtt"])
