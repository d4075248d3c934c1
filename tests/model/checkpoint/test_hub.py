"""Models by their name on the hub, against a hub on this machine: what is fetched, what is refused, what goes wrong."""

import errno
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import huggingface_hub
import pytest
import torch
from huggingface_hub import constants
from huggingface_hub.utils import WeakFileLock
from safetensors.torch import load_file, save_file
from support.released_layouts import SIZES_TINY, plus_shapes, write_plus, write_qwen

from avcap.errors import UserError
from avcap.files.hub_names import HubName, folder_title, read_hub_name, snapshot_name
from avcap.model.checkpoint import hub_client
from avcap.model.checkpoint.doctor import examine
from avcap.model.checkpoint.hub import SMALL_FILES, fetch, fetch_chat_model, headers
from avcap.model.checkpoint.layouts import ADAPTER, WHISPER, identify
from avcap.model.salmonn2_plus.released import PLUS

SOURCE = Path(__file__).parents[3] / "src"
NAME = HubName(repo="org/name")
TOKEN = "hf_ThisIsNobodysToken"
SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")


@pytest.fixture(scope="module")
def plus(tmp_path_factory: pytest.TempPathFactory, plus_folder: Path) -> Path:
    """A 2+ release in one file, with what releases have besides: code and pickles."""
    folder = write_plus(tmp_path_factory.mktemp("hub") / "plus", SIZES_TINY, tokenizer_from=plus_folder)
    for name in ("modeling_plus.py", "spk_dict.pt", "pytorch_model.bin", "README.md", "benchmark.png"):
        (folder / name).write_bytes(b"nobody needs this")
    return folder


@pytest.fixture(scope="module")
def sharded(tmp_path_factory: pytest.TempPathFactory, plus: Path) -> Path:
    """The same in two files, and one more that the index does not name."""
    folder = tmp_path_factory.mktemp("hub") / "sharded"
    shutil.copytree(plus, folder)
    (folder / "model.safetensors").unlink()
    tensors = load_file(plus / "model.safetensors")
    names = sorted(tensors)
    halves = dict(zip(SHARDS, (names[:70], names[70:]), strict=True))
    for file, half in halves.items():
        save_file({name: tensors[name] for name in half}, folder / file)
    weight_map = {name: file for file, half in halves.items() for name in half}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    save_file({"talker.weight": torch.zeros(4)}, folder / "model-talker.safetensors")
    return folder


@pytest.fixture
def quickly(monkeypatch: pytest.MonkeyPatch):
    """The library waits between two tries; here it does not."""
    monkeypatch.setattr("time.sleep", lambda seconds, sleep=time.sleep: sleep(min(seconds, 0.01)))


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "models--org--name"


def says(call, *words: str) -> str:
    """The one line that the call is refused with, which holds all these words -> the line."""
    with pytest.raises(UserError) as refused:
        call()
    line = str(refused.value)
    assert "\n" not in line
    for word in words:
        assert word in line, line
    return line


# ---- names


@pytest.mark.parametrize(
    ("text", "repo", "revision"),
    [
        ("org/name", "org/name", None),
        ("tsinghua-ee/video-SALMONN-2_plus_7B@v1.0", "tsinghua-ee/video-SALMONN-2_plus_7B", "v1.0"),
        ("org/name@refs/pr/3", "org/name", "refs/pr/3"),
        ("hf:org/name", "org/name", None),
    ],
)
def test_a_name_and_its_revision_are_read(text, repo, revision):
    assert read_hub_name(text) == HubName(repo=repo, revision=revision)


@pytest.mark.parametrize(
    "text",
    [
        "tiny",
        "./org/name",
        "../name",
        "/org/name",
        "a/b/c",
        "org/name@",
        "org/",
        "org--x/name",
        "org/na..me",
        "org/.name",
        "org/name.",
        "openai:org/name@http://127.0.0.1:8000/v1",
        "~/name",
        "org/name\n",
        "org/näme",
    ],
)
def test_paths_and_engines_are_no_names(text):
    assert read_hub_name(text) is None


def test_what_is_forced_to_be_a_name_must_be_one():
    says(lambda: read_hub_name("hf:tiny"), "hf:tiny", "hf:org/name or hf:org/name@revision")


def test_a_folder_of_the_cache_tells_what_it_holds(tmp_path):
    folder = tmp_path / "models--org--na.me" / "snapshots" / ("0a" * 20)
    folder.mkdir(parents=True)
    (tmp_path / "link").symlink_to(folder)
    assert str(snapshot_name(folder)) == str(snapshot_name(tmp_path / "link")) == "org/na.me@" + "0a" * 20
    assert folder_title(folder) == "org/na.me@" + "0a" * 20
    for other in (tmp_path, folder.parent, tmp_path / "models--a--b--c" / "snapshots" / folder.name, Path("tiny")):
        assert snapshot_name(other) is None
    assert folder_title(tmp_path) == tmp_path.name


# ---- what is fetched


def test_only_what_is_needed_is_fetched_small_files_first(hub, plus, cache, caplog):
    caplog.set_level(logging.INFO, logger="avcap")
    commit = hub.publish("org/name", plus)
    folder = fetch(NAME)
    assert folder == cache / "snapshots" / commit
    expected = {path.name for path in plus.iterdir()} & {*SMALL_FILES, "model.safetensors"}
    assert {path.name for path in folder.iterdir()} == set(hub.fetched()) == expected
    assert {"config.json", "vocab.json", "merges.txt", "model.safetensors"} <= expected
    assert hub.fetched()[-1] == "model.safetensors"
    size = (plus / "model.safetensors").stat().st_size
    assert caplog.messages[0] == f"org/name: commit {commit}"
    assert caplog.messages[1].startswith(f"org/name: 1 file to fetch, {size / 1000:.1f} kB; ")
    assert identify(folder).layout is PLUS


def test_the_second_time_one_question_is_asked_and_none_where_the_commit_is_named(hub, plus):
    commit = hub.publish("org/name", plus)
    folder = fetch(NAME)
    with hub.watch() as asked:
        assert fetch(NAME) == folder
        assert [one.path for one in asked] == ["/api/models/org/name"]
    with hub.watch() as asked:
        assert fetch(HubName(repo="org/name", revision=commit)) == folder
        assert asked == []


def test_shards_that_the_index_does_not_name_are_left_out(hub, sharded):
    hub.publish("org/name", sharded)
    folder = fetch(NAME)
    assert sorted(path.name for path in folder.glob("*.safetensors")) == list(SHARDS)
    assert len(identify(folder).tensors) == len(plus_shapes(SIZES_TINY))


def test_small_files_alone_then_the_rest(hub, sharded):
    hub.publish("org/name", sharded)
    folder = fetch(NAME, weights=False)
    assert not list(folder.glob("*.safetensors")) and (folder / "vocab.json").exists()
    with hub.watch() as asked:
        assert fetch(snapshot_name(folder), cache=folder.parents[2]) == folder
        assert not [one for one in asked if one.path == "/api/models/org/name"], "its commit was known"
    assert sorted(path.name for path in folder.glob("*.safetensors")) == list(SHARDS)


def test_a_revision_is_another_commit(hub, plus):
    old = hub.publish("org/name", plus, branch="v1")
    new = hub.publish("org/name", plus, avcap__json=b'{"name": "newer"}')
    assert old != new
    assert fetch(HubName(repo="org/name", revision="v1")).name == old
    assert fetch(NAME).name == new


def test_a_branch_with_a_slash_and_a_model_that_has_moved(hub, plus):
    commit = hub.publish("org/name", plus, branch="refs/pr/3")
    assert fetch(HubName(repo="org/name", revision="refs/pr/3")).name == commit
    hub.publish("org/name", plus)
    hub.moved["old/name"] = "org/name"
    assert snapshot_name(fetch(HubName(repo="old/name"))) == HubName(repo="old/name", revision=commit)


def test_large_files_come_from_another_host_which_gets_no_token(hub, plus, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    hub.token, hub.via_cdn = TOKEN, True
    hub.gated.add("org/name")
    hub.publish("org/name", plus)
    assert identify(fetch(NAME)).layout is PLUS
    elsewhere = [one for one in hub.asked if one.host == "localhost"]
    assert [one.method for one in elsewhere] == ["GET"]
    assert "authorization" not in elsewhere[0].headers
    assert all(one.headers["authorization"] == f"Bearer {TOKEN}" for one in hub.asked if one.host != "localhost")


def test_headers_are_enough_for_what_reads_no_weights(hub, sharded):
    commit = hub.publish("org/name", sharded)
    for file in SHARDS:
        hub.piece_s[file] = 0
    with headers(NAME) as hollow:
        assert folder_title(hollow) == f"org/name@{commit}"
        assert examine(hollow).problems == []
        real = identify(sharded).tensors
        assert {name: (info.shape, info.offset) for name, info in identify(hollow).tensors.items()} == {
            name: (info.shape, info.offset) for name, info in real.items()
        }
    assert not hollow.exists()
    # 128 KiB of each file at most, which the header is in
    assert [one.sent[0] for one in hub.asked if one.path.endswith(SHARDS)] == [
        min(2**17, (sharded / file).stat().st_size) for file in SHARDS
    ]


def test_a_header_that_is_long_is_fetched_whole_from_a_hub_without_ranges(hub, plus, tmp_path):
    tensors = {f"audio.{'x' * 200}.{index}": torch.zeros(1) for index in range(1000)}  # names of 200 kB together
    save_file(tensors, tmp_path / "model.safetensors")
    hub.takes_ranges = False
    hub.publish("org/name", plus, model__safetensors=(tmp_path / "model.safetensors").read_bytes())
    with headers(NAME) as hollow:
        assert set(identify(hollow).tensors) == set(tensors)


def test_headers_of_what_is_in_the_cache_are_read_there(hub, plus):
    hub.publish("org/name", plus)
    folder = fetch(NAME)
    with hub.watch() as asked, headers(snapshot_name(folder)) as found:
        assert found == folder and asked == []


# ---- what is refused before the weights


@pytest.fixture
def official(hub, plus):
    """-> function: files instead of those of the release (None: without) -> the line that refuses them unfetched."""

    def publish(*words: str, layouts=None, **files) -> str:
        held = {path.name: path.read_bytes() for path in plus.iterdir()}
        held |= {name.replace("__", "."): data for name, data in files.items()}
        names = {name.replace(".", "__"): data for name, data in held.items() if data is not None}
        hub.publish("org/name", **names)
        line = says(lambda: fetch(NAME, **({"layouts": layouts} if layouts else {})), *words)
        assert not [file for file in hub.fetched() if file.endswith((".safetensors", ".bin", ".pt", ".py"))]
        return line

    return publish


def test_a_type_that_is_not_known(official):
    official("org/name/config.json: got model_type 'qwen3_vl'", config__json=b'{"model_type": "qwen3_vl"}')


def test_code(official):
    config = {"model_type": "qwen2_5_vl", "auto_map": {"AutoModel": "modeling_plus.Model"}}
    official("org/name/config.json: auto_map names code", config__json=json.dumps(config).encode())


def test_pickles_alone(official):
    line = official("got pickled weights (pytorch_model.bin, spk_dict.pt)", model__safetensors=None)
    assert "expected safetensors" in line


def test_neither_weights_nor_config(official):
    official("expected model.safetensors", model__safetensors=None, pytorch_model__bin=None, spk_dict__pt=None)
    official("no config.json but README.md", config__json=None)


def test_an_index_of_what_is_not_there(official):
    index = {"weight_map": {"a": SHARDS[0]}}
    official(
        f"names {SHARDS[0]}, which is not there",
        model__safetensors=None,
        **{"model.safetensors.index.json": json.dumps(index).encode()},
    )


@pytest.mark.parametrize("file", ["pytorch_model.bin", "../../x.safetensors"])
def test_an_index_of_other_files(official, file):
    index = {"weight_map": {"audio.a": file}}
    official(file, model__safetensors=None, **{"model.safetensors.index.json": json.dumps(index).encode()})


def test_a_config_of_gigabytes(hub, plus):
    hub.listed_bytes["config.json"] = 5 * 10**9
    hub.publish("org/name", plus)
    says(lambda: fetch(NAME), "config.json has 5.0 GB, expected a small file")
    assert hub.fetched() == []


def test_another_layout_than_is_expected(hub, plus, tmp_path, plus_folder):
    hub.publish("org/name", plus)
    says(lambda: fetch(NAME, layouts=(WHISPER,)), "a released video-SALMONN 2+ folder, expected a plain Whisper")
    hub.publish("org/qwen", write_qwen(tmp_path / "qwen", SIZES_TINY, tokenizer_from=plus_folder))
    says(lambda: fetch(HubName(repo="org/qwen")), "avcap init-audio org/qwen WHISPER DST")
    assert "model.safetensors" not in hub.fetched()


def adapter(base: str) -> dict[str, bytes]:
    config = {"peft_type": "LORA", "r": 8, "lora_alpha": 16, "base_model_name_or_path": base}
    return {"adapter_config__json": json.dumps(config).encode(), "adapter_model__safetensors": b"weights"}


def test_an_adapter_names_the_release_that_is_whole_or_its_base(hub, plus):
    hub.publish("org/name", **adapter("output/align/checkpoint-30510"))
    says(lambda: fetch(NAME), "PEFT adapter", "avcap convert org/name DST --base FOLDER")
    hub.publish("org/base", plus)
    hub.publish("org/name", **adapter("org/base"))
    says(lambda: fetch(NAME), "avcap convert org/name DST --base org/base")
    hub.publish("org/name_full", plus)
    says(lambda: fetch(NAME), "--model org/name_full")
    released = "tsinghua-ee/video-SALMONN-2_plus_72B"
    hub.publish(released, **adapter("output/align/checkpoint-30510"))
    says(lambda: fetch(HubName(repo=released)), "--base tsinghua-ee/video_SALMONN2plus_72B_audioAlign")
    assert not [file for file in hub.fetched() if file.endswith(".safetensors")]
    assert fetch(NAME, layouts=(ADAPTER,)).joinpath("adapter_model.safetensors").read_bytes() == b"weights"


@pytest.mark.filterwarnings("ignore:Not enough free disk")  # the library's, for the small files
def test_a_disk_that_is_too_small(hub, plus, monkeypatch):
    hub.publish("org/name", plus)
    monkeypatch.setattr("avcap.model.checkpoint.hub.shutil.disk_usage", lambda path: type("Usage", (), {"free": 1000}))
    says(lambda: fetch(NAME), "needs ", "1.0 kB are free", "HF_HOME")
    assert "model.safetensors" not in hub.fetched()


def test_a_judge_must_be_able_to_chat(hub):
    config, tensors = b'{"model_type": "qwen2"}', b"weights"
    template = b'{"chat_template": "{{ messages }}"}'
    hub.publish("org/name", config__json=config, model__safetensors=tensors, tokenizer_config__json=b"{}")
    says(lambda: fetch_chat_model(NAME), "no chat template")
    hub.publish("org/name", config__json=b'{"model_type": "own_code"}', tokenizer_config__json=template)
    says(lambda: fetch_chat_model(NAME), "'own_code'", "never run")
    hub.publish("org/name", config__json=config, model__bin=tensors, tokenizer_config__json=template)
    says(lambda: fetch_chat_model(NAME), "pickled weights (model.bin)")
    assert "model.safetensors" not in hub.fetched() and "model.bin" not in hub.fetched()
    hub.publish("org/name", config__json=config, model__safetensors=tensors, tokenizer_config__json=template)
    assert (fetch_chat_model(NAME) / "model.safetensors").read_bytes() == tensors


# ---- the hub refuses


def test_what_is_not_there(hub, plus, monkeypatch):
    says(lambda: fetch(NAME), f"org/name: no such model on {hub.url} and no such folder here", "it needs a token")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    says(lambda: fetch(NAME), "no such model", "does not open it")
    hub.publish("org/name", plus)
    says(lambda: fetch(HubName(repo="org/name", revision="v7")), "org/name@v7: no revision 'v7'")
    says(lambda: fetch(HubName(repo="org/name", revision="0" * 40)), "no revision '" + "0" * 40)


def test_a_gated_model(hub, plus, monkeypatch):
    hub.gated.add("org/name")
    hub.publish("org/name", plus)
    says(lambda: fetch(NAME), f"gated: accept its terms at {hub.url}/org/name, then set HF_TOKEN")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    says(lambda: fetch(NAME), "gated, and the account of the token (HF_TOKEN) has no access")
    hub.token = TOKEN
    assert identify(fetch(NAME)).layout is PLUS


def test_a_token_that_is_none(hub, plus, monkeypatch):
    hub.token = TOKEN
    hub.publish("org/name", plus)
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    says(lambda: fetch(NAME), "does not know the token")
    for wrong in ("hf_wröng", "hf_two words"):
        monkeypatch.setenv("HF_TOKEN", wrong)
        assert wrong not in says(lambda: fetch(NAME), "HF_TOKEN", "copy it again")


@pytest.mark.parametrize(("status", "words"), [(403, "forbids it"), (429, "asked too often"), (503, "answers 503")])
def test_other_refusals(hub, plus, quickly, status, words):
    hub.publish("org/name", plus)
    hub.statuses += [status] * 9
    says(lambda: fetch(NAME), f"org/name: {hub.url}", words)


def test_what_is_no_hub(hub, plus, monkeypatch):
    hub.publish("org/name", plus)
    hub.is_page = True
    says(lambda: fetch(NAME), "does not answer as a hub does", "HF_ENDPOINT")
    monkeypatch.setattr(constants, "ENDPOINT", "huggingface.co")
    says(lambda: fetch(NAME), "got HF_ENDPOINT 'huggingface.co'")
    monkeypatch.setattr(constants, "ENDPOINT", hub.url.replace("http://", "http://me:password@"))
    assert "password" not in says(lambda: fetch(NAME), hub.url)


def test_a_hub_that_never_answers(hub, plus, monkeypatch, quickly):
    hub.publish("org/name", plus)
    monkeypatch.setattr(hub_client, "TIMEOUT_S", 0.2)
    for address in ("/tree/", "/api/"):
        hub.hangs_at = address
        says(lambda: fetch(NAME), f"{hub.url} cannot be reached (ReadTimeout)")


def test_a_listing_of_several_pages(hub, sharded):
    hub.page = 3
    hub.publish("org/name", sharded)
    assert len(identify(fetch(NAME)).tensors) == len(plus_shapes(SIZES_TINY))


def test_a_hub_that_cannot_be_reached(hub, plus, monkeypatch):
    commit = hub.publish("org/name", plus)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    line = says(lambda: fetch(NAME), "http://127.0.0.1:9 cannot be reached (ConnectError)")
    assert "HF_HUB_OFFLINE" not in line
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    folder = fetch(NAME)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    says(lambda: fetch(NAME), "cannot be reached", f"commit {commit} is in the cache: HF_HUB_OFFLINE=1 takes it")
    assert fetch(HubName(repo="org/name", revision=commit)) == folder


# ---- offline


def test_offline_nothing_is_asked(hub, sharded, monkeypatch):
    hub.publish("org/name", sharded)
    folder = fetch(NAME)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with hub.watch() as asked:
        assert fetch(NAME) == folder
        other = HubName(repo="org/other")
        says(lambda: fetch(other), "org/other: not in ", "hf download org/other;", "models--org--other")
        (folder / SHARDS[1]).unlink()
        download = f"hf download org/name --revision {folder.name}"
        says(lambda: fetch(NAME), f"{SHARDS[1]} not whole in {folder}", download)
        with pytest.raises(UserError, match="HF_HUB_OFFLINE is set"), headers(NAME):
            pass
        (folder / "merges.txt").unlink()
        says(lambda: fetch(NAME), "merges.txt not whole in ")
        assert asked == []


def test_a_copy_of_the_cache_without_its_notes_is_used(hub, plus, monkeypatch, cache):
    """As `hf download` of an older library, or a copy by hand, leaves it."""
    hub.publish("org/name", plus)
    folder = fetch(NAME)
    shutil.rmtree(cache / "trees")
    huggingface_hub._tree_cache._IN_MEMORY_TREE_CACHE.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert fetch(NAME) == folder
    (folder / "model.safetensors").unlink()
    says(lambda: fetch(NAME), "model.safetensors not whole in ")


@pytest.mark.parametrize("file", ["merges.txt", SHARDS[0]])
def test_a_file_of_the_cache_that_was_cut_off_is_fetched_again(hub, sharded, monkeypatch, file):
    """As a copy of the cache leaves it that was not finished."""
    hub.publish("org/name", sharded)
    folder = fetch(NAME)
    os.truncate(folder / file, 10)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    says(lambda: fetch(NAME), f"{file} not whole in ")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with hub.watch():
        assert (fetch(NAME) / file).read_bytes() == (sharded / file).read_bytes()
        assert hub.fetched() == [file]


# ---- connections that break, files that are not what they should be


def test_a_connection_that_breaks_is_taken_up_again(hub, sharded, quickly):
    hub.publish("org/name", sharded)
    hub.cut_at[SHARDS[0]] = [100_000, 0]
    assert len(identify(fetch(NAME)).tensors) == len(plus_shapes(SIZES_TINY))
    assert hub.fetched().count(SHARDS[0]) == 3  # cut twice


def test_a_connection_that_breaks_for_good_keeps_what_is_finished(hub, sharded, quickly, cache):
    commit = hub.publish("org/name", sharded)
    hub.cut_at[SHARDS[0]] = [1000] * 50
    says(lambda: fetch(NAME), "cannot be reached (RemoteProtocolError); try again, files that are finished are kept")
    folder = cache / "snapshots" / commit
    assert (folder / SHARDS[1]).exists() and not (folder / SHARDS[0]).exists()
    assert not list(cache.rglob("*.incomplete"))
    hub.cut_at.clear()
    with hub.watch():
        fetch(NAME)
        assert hub.fetched() == [SHARDS[0]]


@pytest.mark.parametrize("file", ["model.safetensors", "config.json"])
def test_other_content_than_is_listed_is_removed(hub, plus, cache, file):
    """Of the right length: only its hash tells, sha256 of weights and git's of small files."""
    commit = hub.publish("org/name", plus)
    hub.change[file] = lambda data: data.replace(b"e", b"f", 1)
    says(lambda: fetch(NAME), f"{file}: its content is not that which the hub lists", "it was removed")
    assert not (cache / "snapshots" / commit / file).exists()
    hub.change.clear()
    folder = fetch(NAME)
    assert (folder / file).read_bytes() == (plus / file).read_bytes()


def test_another_length_than_is_listed(hub, plus, quickly):
    hub.publish("org/name", plus)
    hub.change["model.safetensors"] = lambda data: data[:-10]
    size = (plus / "model.safetensors").stat().st_size
    says(lambda: fetch(NAME), f"model.safetensors: came with another length than the hub lists ({size:,} bytes)")
    hub.change.clear()
    hub.listed_bytes["model.safetensors"] = size + 1
    says(lambda: fetch(NAME), f"model.safetensors: came with another length than the hub lists ({size + 1:,} bytes)")
    hub.listed_bytes.clear()
    assert identify(fetch(NAME)).layout is PLUS


def test_a_part_is_removed_unless_somebody_writes_it(hub, sharded, cache, caplog):
    caplog.set_level(logging.INFO, logger="avcap")
    hub.publish("org/name", sharded)
    (cache / "blobs").mkdir(parents=True)
    locks = cache.parent / ".locks" / cache.name
    locks.mkdir(parents=True)
    stale, live = cache / "blobs" / "aa.1234.incomplete", cache / "blobs" / "bb.1234.incomplete"
    stale.write_bytes(bytes(3_000_000))
    live.write_bytes(b"half")
    with WeakFileLock(locks / "bb.lock"):
        fetch(NAME)
    assert live.exists() and not stale.exists()
    assert "org/name: 3.0 MB of files removed that another run had not finished" in caplog.messages


FETCH = """
    from avcap.files.hub_names import HubName
    from avcap.model.checkpoint.hub import fetch
    print("begun", flush=True)
    print(fetch(HubName(repo="org/name")))
"""


@pytest.fixture
def begun(hub, sharded, cache):
    """A process that has fetched the second of two files and is in the middle of the first -> it."""
    hub.publish("org/name", sharded)
    hub.piece_s[SHARDS[0]] = 0.5
    environment = os.environ | {
        "PYTHONPATH": str(SOURCE),
        "HF_ENDPOINT": hub.url,
        "HF_HUB_CACHE": str(cache.parent),
    }
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(FETCH)], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    deadline = time.monotonic() + 120
    while not (list(cache.glob(f"snapshots/*/{SHARDS[1]}")) and list(cache.glob("blobs/*.incomplete"))):
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.02)
    yield process
    process.kill()
    process.communicate()


@pytest.mark.slow
def test_after_a_kill_finished_files_are_kept_and_the_rest_begins_again(hub, sharded, cache, begun):
    begun.send_signal(signal.SIGKILL)
    begun.wait()
    assert list(cache.glob("blobs/*.incomplete")), "nobody could tidy up"
    hub.piece_s.clear()
    with hub.watch():
        folder = fetch(NAME)
        assert hub.fetched() == [SHARDS[0]]
    assert not list(cache.glob("blobs/*.incomplete"))
    assert len(identify(folder).tensors) == len(plus_shapes(SIZES_TINY))


@pytest.mark.slow
def test_ctrl_c_ends_it_soon(hub, cache, begun):
    begun.send_signal(signal.SIGINT)
    begin = time.monotonic()
    begun.wait(timeout=20)
    assert time.monotonic() - begin < 5
    assert b"KeyboardInterrupt" in begun.communicate()[1]
    hub.piece_s.clear()
    fetch(NAME)
    assert not list(cache.glob("blobs/*.incomplete"))


@pytest.mark.parametrize("error", [RuntimeError("at https://x?sig=signed"), huggingface_hub.errors.XetDownloadError()])
def test_what_the_other_transport_raises(hub, plus, monkeypatch, error):
    hub.publish("org/name", plus)
    fetch(NAME, weights=False)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda **options: (_ for _ in ()).throw(error))
    line = says(lambda: fetch(NAME), f"org/name: could not be fetched from {hub.url} ({type(error).__name__})")
    assert "signed" not in line


def test_a_disk_that_is_full_in_the_end_is_told_of_as_everywhere(hub, plus, monkeypatch):
    hub.publish("org/name", plus)
    fetch(NAME, weights=False)
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda **options: (_ for _ in ()).throw(full))
    with pytest.raises(OSError, match="No space left"):
        fetch(NAME)


def test_a_token_is_in_no_file_and_in_no_line(hub, plus, monkeypatch, tmp_path, caplog, quickly):
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    hub.token, hub.via_cdn = TOKEN, True
    lines = [says(lambda: fetch(NAME))]  # this hub repeats the token in its refusals
    hub.gated.add("org/name")
    hub.publish("org/name", plus)
    fetch(NAME)
    hub.token = "hf_another"
    hub.publish("org/name", plus, avcap__json=b"{}")
    lines.append(says(lambda: fetch(NAME)))
    hub.token = TOKEN
    hub.cut_at["model.safetensors"] = [10] * 20
    hub.publish("org/name", plus, model__safetensors=(plus / "model.safetensors").read_bytes() + b" ")
    lines.append(says(lambda: fetch(NAME)))
    ours = [record.getMessage() for record in caplog.records if record.name in ("avcap", "huggingface_hub")]
    for secret in (TOKEN, "signed-secret"):
        assert not [line for line in (*lines, *ours) if secret in line]
        assert not [path for path in tmp_path.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()]
    assert any(TOKEN in one.headers.get("authorization", "") for one in hub.asked), "it was used"


def test_asked_whether_something_exists_a_silent_hub_means_no(hub, monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert not hub_client.exists(NAME)
