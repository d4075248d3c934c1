"""A model's name on the hub -> its folder: first the small files, then a look at what it is, and only then gigabytes.

Files are chosen by a list of those that are read here; code and pickles are never fetched. What is there already is
found without a request if the name has a commit in it.
"""

import contextlib
import re
import shutil
import struct
import sys
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from transformers import CONFIG_MAPPING

from avcap.errors import UserError
from avcap.files.hub_names import SNAPSHOTS, HubName, read_hub_name
from avcap.model.checkpoint import hub_client
from avcap.model.checkpoint.hub_client import HubFile, Repository, logger
from avcap.model.checkpoint.layouts import (
    ADAPTER,
    ADAPTER_CONFIG,
    ADAPTER_FILE,
    CONFIG,
    layout_of_small_files,
    runnable,
)
from avcap.model.checkpoint.placement import describe_bytes
from avcap.model.checkpoint.weight_files import (
    LONGEST_HEADER,
    PICKLE_SUFFIXES,
    SHARD_INDEX,
    SINGLE_FILE,
    read_json,
    read_weight_map,
)
from avcap.model.layout import Layout

SMALL_FILES = (
    CONFIG,
    ADAPTER_CONFIG,
    SHARD_INDEX,
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "vocab.json",
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.json",
    "chat_template.jinja",
    "qformer_config.json",
    "siglip_config.json",
    "whisper_config.json",
    "avcap.json",
    "world_check.safetensors",
    "lineage.json",
    "LICENSE",
)
"""All that is read of a checkpoint beside its weights."""
LARGEST_SMALL = 100 * 10**6  # bytes; the tokenizer of a large vocabulary has a fifth of it
FIRST_BYTES = 2**17  # of a weight file: the header of most
RELEASED_ADAPTER = re.compile(r"tsinghua-ee/video-SALMONN-2_plus_(?P<size>3B|7B|72B)")
RELEASED_BASE = "tsinghua-ee/video_SALMONN2plus_{size}_audioAlign"
FULL = "_full"
"""How the releases call an adapter that is merged into its base."""


@dataclass(frozen=True, kw_only=True)
class _Found:
    """A model whose small files are here, and its weight files, which need not be."""

    name: HubName
    """As the user gave it."""
    repository: Repository
    weights: list[str]
    listed: dict[str, HubFile] | None
    """What the hub said about the files, if it was asked."""
    sizes: dict[str, int] | None
    """Bytes of all files of the commit, if they are known."""

    @property
    def missing(self) -> list[str]:
        return [file for file in self.weights if not _is_whole(self.repository.folder / file, self.sizes)]

    def ask(self) -> dict[str, HubFile]:
        """What the hub says about the files; asked now, if it was not before."""
        return self.listed if self.listed is not None else hub_client.list_files(self.repository)


def fetch(
    name: HubName, *, layouts: Collection[Layout] | None = None, weights: bool = True, cache: Path | None = None
) -> Path:
    """A name -> the folder of its commit, in the cache of the hub's library.

    Args:
        name: without a revision, the newest commit; which one it is, is said.
        layouts: what it may be (None: what --model takes); anything else is refused before its weights are fetched.
        weights: False for a folder that has the small files, and perhaps not yet the weights.
        cache: the library's folder, if it is not the one of HF_HOME.

    Raises:
        UserError: in one line, for what is none of the layouts, and for whatever keeps it from being fetched.
    """
    found = _find(name, layouts=runnable() if layouts is None else layouts, cache=cache)
    if weights:
        _fetch_weights(found)
    return found.repository.folder


def fetch_chat_model(name: HubName) -> Path:
    """The same for a language model that answers chats, of any type that transformers knows."""
    found = _find(name, layouts=None)
    _fetch_weights(found)
    return found.repository.folder


@contextlib.contextmanager
def headers(name: HubName, *, layouts: Collection[Layout] | None = None) -> Iterator[Path]:
    """A name -> a folder in which weight files are as long as they should be, and hold no more than their headers.

    It is enough for all that reads no weights, takes kilobytes of network and disk, and is gone afterwards. Where the
    weights are in the cache, it is the folder there.
    """
    found = _find(name, layouts=runnable() if layouts is None else layouts)
    folder = found.repository.folder
    missing = found.missing
    if not missing:
        with _named(folder, name):
            yield folder
        return
    if hub_client.is_offline():
        hub_client.refuse_missing(found.repository, missing)
    listed = found.ask()
    with TemporaryDirectory(prefix="avcap-") as place:
        hollow = Path(place).resolve() / name.folder_name / SNAPSHOTS / folder.name
        hollow.mkdir(parents=True)
        for file in SMALL_FILES:
            if (folder / file).is_file():
                shutil.copyfile(folder / file, hollow / file)
        with _named(hollow, name):
            for file in found.weights:
                _write_hollow(hollow / file, found.repository, listed[file])
            yield hollow


def _write_hollow(path: Path, repository: Repository, file: HubFile) -> None:
    start = hub_client.read_start(repository, file, num_bytes=min(FIRST_BYTES, file.num_bytes))
    length = struct.unpack("<Q", start[:8])[0] if len(start) >= 8 else 0
    if len(start) < 8 + length <= min(file.num_bytes, LONGEST_HEADER):
        start = hub_client.read_start(repository, file, num_bytes=8 + length)
    with open(path, "wb") as out:
        out.write(start[: 8 + length])
        out.truncate(file.num_bytes)


@contextlib.contextmanager
def _named(folder: Path, name: HubName) -> Iterator[None]:
    """Errors call the folder by the name that the user knows."""
    try:
        yield
    except UserError as error:
        raise UserError(str(error).replace(str(folder), str(name))) from None


def _find(name: HubName, *, layouts: Collection[Layout] | None, cache: Path | None = None) -> _Found:
    """A name -> its commit, small files fetched and looked at. `layouts` None: a language model for chats."""
    repository = hub_client.open_repository(name, cache=cache)
    if not name.is_pinned:
        logger.info(f"{name}: commit {repository.name.revision}")
    sizes = hub_client.known_sizes(repository)
    listed = None
    if missing := _missing_small(repository.folder, sizes):
        if hub_client.is_offline():
            hub_client.refuse_missing(repository, missing)
        listed = hub_client.list_files(repository)
        sizes = {file.name: file.num_bytes for file in listed.values()}
        _fetch_small(name, repository, listed)
    with _named(repository.folder, name):
        if layouts is None:
            _check_chat_model(name, repository.folder)
        else:
            _check_layout(name, repository.folder, layouts)
        return _Found(
            name=name,
            repository=repository,
            listed=listed,
            sizes=sizes,
            weights=_weight_files(name, folder=repository.folder, names=sizes),
        )


def _is_whole(path: Path, sizes: dict[str, int] | None) -> bool:
    """Whether a file is there, and as long as the hub lists it, if that is known."""
    return path.is_file() and (sizes is None or path.stat().st_size == sizes.get(path.name))


def _missing_small(folder: Path, sizes: dict[str, int] | None) -> list[str]:
    """Small files that are not there. Where it is not known which there are (`sizes` None), a config stands for all."""
    if sizes is not None:
        return [file for file in SMALL_FILES if file in sizes and not _is_whole(folder / file, sizes)]
    return [] if any((folder / file).is_file() for file in (CONFIG, ADAPTER_CONFIG)) else [CONFIG]


def _fetch_small(name: HubName, repository: Repository, listed: dict[str, HubFile]) -> None:
    if not listed.keys() & {CONFIG, ADAPTER_CONFIG}:
        files = sorted(listed)
        more = f" and {len(files) - 3} more" if len(files) > 3 else ""
        raise UserError(f"{name}: no {CONFIG} but {', '.join(files[:3]) or 'no files'}{more}; expected a checkpoint")
    expected = [listed[file] for file in SMALL_FILES if file in listed]
    if large := [file for file in expected if file.num_bytes > LARGEST_SMALL]:
        size = describe_bytes(large[0].num_bytes)
        raise UserError(f"{name}: {large[0].name} has {size}, expected a small file; it is no checkpoint")
    hub_client.fetch_small(repository, expected)


def _check_layout(name: HubName, folder: Path, layouts: Collection[Layout]) -> None:
    """Raises UserError for what is not wanted, with what to do instead."""
    layout = layout_of_small_files(folder)
    if layout in layouts:
        return
    takes_models = set(runnable()) <= set(layouts)
    if layout is ADAPTER and takes_models:
        raise UserError(f"{name}: {layout.one}; {_instead_of_adapter(name, folder)}")
    if not layout.runs and takes_models:
        raise UserError(f"{name}: {layout.one}; {layout.what_to_do.format(path=name)}")
    raise UserError(f"{name}: {layout.one}, expected {' or '.join(one.one for one in layouts)}")


def _instead_of_adapter(name: HubName, folder: Path) -> str:
    """What to do about an adapter: take the release that is merged already, or merge it into its base."""
    full = HubName(repo=f"{name.repo}{FULL}")
    released = RELEASED_ADAPTER.fullmatch(name.repo)
    if hub_client.exists(full) or (hub_client.is_offline() and released and released["size"] != "72B"):
        return f"take the whole model instead: --model {full}"
    base = RELEASED_BASE.format(size=released["size"]) if released else _base_of(folder) or "FOLDER"
    return f"merge it into its base: avcap convert {name} DST --base {base}"


def _base_of(folder: Path) -> str | None:
    """Folder of an adapter -> the model on the hub that it says it was trained on."""
    named = read_json(folder / ADAPTER_CONFIG).get("base_model_name_or_path")
    base = read_hub_name(named) if isinstance(named, str) and not named.startswith("hf:") else None
    return str(base) if base is not None and (hub_client.is_offline() or hub_client.exists(base)) else None


def _check_chat_model(name: HubName, folder: Path) -> None:
    """Raises UserError for what cannot be a judge: another thing than a language model, or one without a template."""
    if not (folder / CONFIG).is_file():
        raise UserError(f"{name}: {ADAPTER.one}; expected a whole language model")
    model_type = read_json(folder / CONFIG).get("model_type")
    if model_type not in CONFIG_MAPPING:
        raise UserError(
            f"{name}: got model_type {model_type!r}, which transformers does not know, and code of a model is never run"
        )
    has_template = any((folder / file).is_file() for file in ("chat_template.jinja", "chat_template.json"))
    settings = folder / "tokenizer_config.json"
    if not has_template and not (settings.is_file() and read_json(settings).get("chat_template")):
        raise UserError(f"{name}: its tokenizer has no chat template, so it is no chat model; take one that was tuned")


def _weight_files(name: HubName, *, folder: Path, names: Collection[str] | None) -> list[str]:
    """Folder of small files -> names of the weight files that are needed. `names`: all of the commit, if known."""
    single = SINGLE_FILE if (folder / CONFIG).is_file() else ADAPTER_FILE
    if single in names if names is not None else (folder / single).is_file():
        return [single]
    if single == SINGLE_FILE and (folder / SHARD_INDEX).is_file():
        files = sorted(set(read_weight_map(folder / SHARD_INDEX).values()))
        if rejection_reason := [file for file in files if not file.endswith(".safetensors")]:
            raise UserError(f"{name}: {SHARD_INDEX} names {rejection_reason[0]}, expected safetensors")
        if names is not None and (gone := [file for file in files if file not in names]):
            raise UserError(f"{name}: {SHARD_INDEX} names {gone[0]}, which is not there; it was not uploaded whole")
        return files
    if names is None:
        return [single]
    weights = sorted(file for file in names if file.endswith((*PICKLE_SUFFIXES, ".safetensors", ".gguf", ".msgpack")))
    got = ", ".join(weights[:3]) + (f" and {len(weights) - 3} more" if len(weights) > 3 else "")
    if any(file.endswith(PICKLE_SUFFIXES) for file in weights):
        raise UserError(
            f"{name}: got pickled weights ({got}), expected safetensors: loading a pickle can run any code, so none is "
            "fetched; ask its authors for safetensors"
        )
    raise UserError(f"{name}: got {got or 'no weights'}, expected {single} or {SHARD_INDEX}")


def _fetch_weights(found: _Found) -> None:
    """Fetches what is not there, after saying how much it is; UserError where the disk is too small for it."""
    missing = found.missing
    if not missing:
        return
    if hub_client.is_offline():
        hub_client.refuse_missing(found.repository, missing)
    listed = found.ask()
    needed = sum(listed[file].num_bytes for file in missing)
    cache = found.repository.cache
    free = shutil.disk_usage(next(place for place in (cache, *cache.parents) if place.exists())).free
    there = len(found.weights) - len(missing)
    kept = f", {there} {'is' if there == 1 else 'are'} there already" if there else ""
    plural = "s" if len(missing) > 1 else ""
    logger.info(
        f"{found.name}: {len(missing)} file{plural} to fetch, {describe_bytes(needed)}{kept}; {describe_bytes(free)} "
        f"are free in {cache}"
    )
    if needed > free:
        raise UserError(
            f"{found.name}: needs {describe_bytes(needed)}, {describe_bytes(free)} are free in {cache}; free some, or "
            "set HF_HOME to a place on a larger disk"
        )
    _fetch_with_bar(found, [listed[file] for file in found.weights], total=needed)


def _fetch_with_bar(found: _Found, files: Sequence[HubFile], *, total: int) -> None:
    what = TextColumn("{task.description}", markup=False)
    columns = [what, BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn()]
    console = Console(stderr=True)
    try:
        with Progress(*columns, console=console, disable=not sys.stderr.isatty()) as progress:
            task = progress.add_task(found.name.repo, total=total)
            hub_client.fetch(
                found.repository, files, on_bytes=lambda num_bytes: progress.update(task, advance=num_bytes)
            )
    except UserError:
        raise
    except BaseException:
        logger.info(f"{found.name}: not fetched whole; the same command goes on, {hub_client.KEPT}")
        raise
