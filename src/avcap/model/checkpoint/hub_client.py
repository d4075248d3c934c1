"""All that is asked of the hub, through its own library: which commit, which files, their bytes, and what went wrong.

HF_HOME, HF_ENDPOINT, HF_TOKEN and HF_HUB_OFFLINE are read by the library. What it keeps, and in which folders, is its
own affair too; files are checked here against the hashes that the hub lists, which over plain HTTP it does not do.
Texts of servers and of transports go into no message: a token or a signed address may stand in them.
"""

import contextlib
import hashlib
import logging
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any
from urllib.parse import urlsplit

import huggingface_hub
from huggingface_hub import constants, errors
from huggingface_hub.utils import (
    WeakFileLock,
    build_hf_headers,
    get_session,
    hf_raise_for_status,
    http_backoff,
    tqdm,
    validate_repo_id,
)

from avcap.errors import UserError
from avcap.files.hashes import hash_file
from avcap.files.hub_names import COMMIT, SNAPSHOTS, HubName
from avcap.files.write import is_full, write_text

logger = logging.getLogger("avcap")

NUM_AT_ONCE = 4
"""Files that are fetched side by side: one alone seldom fills a line."""
TIMEOUT_S = 10.0
LOCK_S = 0.05
"""How long it takes to find out whether a process still writes a file."""
TRANSPORTS = ("hf_xet", "huggingface_hub")
"""Packages with errors of their own; the first also raises RuntimeError for whatever it has no name for."""
KEPT = "files that are finished are kept"


@dataclass(frozen=True, kw_only=True)
class HubFile:
    """A file as the hub lists it; it has one of the two hashes, git's for small ones."""

    name: str
    num_bytes: int
    sha256: str | None
    git_sha1: str | None


@dataclass(frozen=True, kw_only=True)
class Repository:
    """A model at one commit, and where the library keeps it."""

    name: HubName
    """With its commit."""
    title: HubName
    """As the user gave it."""
    cache: Path

    @property
    def folder(self) -> Path:
        assert self.name.revision is not None
        return self.cache / self.name.folder_name / SNAPSHOTS / self.name.revision

    @property
    def arguments(self) -> dict[str, Any]:
        """What every call of the library takes."""
        return {"repo_id": self.name.repo, "revision": self.name.revision, "cache_dir": self.cache}


class _Stopped(Exception):
    """Nobody waits for this file any more."""


def endpoint() -> str:
    """The hub's address, without what an address may hold of a password."""
    parts = urlsplit(constants.ENDPOINT)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def is_offline() -> bool:
    """Whether HF_HUB_OFFLINE says that nothing may be asked."""
    return bool(constants.HF_HUB_OFFLINE)


def open_repository(name: HubName, *, cache: Path | None = None) -> Repository:
    """A name -> the commit that it stands for now.

    Args:
        name: asked of the hub, in one request, unless it is a commit already or HF_HUB_OFFLINE is set.
        cache: the library's folder, if it is not the one of HF_HOME.

    Raises:
        UserError: in one line, for whatever keeps it from being known.
    """
    cache = (cache or Path(constants.HF_HUB_CACHE)).expanduser().absolute()
    if name.is_pinned:
        return Repository(name=name, title=name, cache=cache)
    branch = cache / name.folder_name / "refs" / (name.revision or constants.DEFAULT_REVISION)
    known = _read_commit(branch)
    if is_offline():
        commit = known or _refuse_offline(name, cache=cache)
    else:
        with hub_errors(name, known=known):
            commit = _ask_commit(name)
        if commit != known:
            _keep_commit(branch, commit)
    return Repository(name=HubName(repo=name.repo, revision=commit), title=name, cache=cache)


def _read_commit(branch: Path) -> str | None:
    try:
        commit = branch.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return None
    return commit if COMMIT.fullmatch(commit) else None


def _keep_commit(branch: Path, commit: str) -> None:
    """Notes, as the library would, what a branch stood for: offline it is taken from there."""
    with contextlib.suppress(UserError, OSError):  # a folder of others that may only be read
        branch.parent.mkdir(parents=True, exist_ok=True)
        write_text(branch, commit)


def _refuse_offline(name: HubName, *, cache: Path) -> str:
    raise UserError(
        f"{name}: not in {cache}, and HF_HUB_OFFLINE is set; on a machine with a network: {_download(name)}; then copy "
        f"the folder {name.folder_name}"
    )


def refuse_missing(repository: Repository, missing: Sequence[str]) -> None:
    """Raises UserError for files that are not there while nothing may be asked."""
    more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
    raise UserError(
        f"{repository.title}: {', '.join(missing[:3])}{more} not whole in {repository.folder}, and HF_HUB_OFFLINE is "
        f"set; on a machine with a network: {_download(repository.name)}; then copy the folder "
        f"{repository.name.folder_name}"
    )


def _download(name: HubName) -> str:
    return f"hf download {name.repo}" + (f" --revision {name.revision}" if name.revision else "")


def _ask_commit(name: HubName) -> str:
    _check_access()
    validate_repo_id(name.repo)
    api = huggingface_hub.HfApi(endpoint=constants.ENDPOINT)
    with _as_a_hub():
        commit = api.model_info(name.repo, revision=name.revision, timeout=TIMEOUT_S).sha
    if commit is None or not COMMIT.fullmatch(commit):
        _refuse_endpoint()
    return str(commit)


def exists(name: HubName) -> bool:
    """Whether there is such a model that can be seen; False, too, where the hub cannot be asked."""
    if is_offline():
        return False
    try:
        with hub_errors(name):
            _ask_commit(name)
    except UserError:
        return False
    return True


def _check_access() -> None:
    """Raises UserError for an address or a token that no request can be made with."""
    parts = urlsplit(constants.ENDPOINT)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise UserError(f"got HF_ENDPOINT {endpoint()!r}, expected an address such as https://huggingface.co")
    token = huggingface_hub.get_token()
    if token is not None and not re.fullmatch(r"[!-~]+", token):
        raise UserError("the token for the hub (HF_TOKEN) has characters that none has; copy it again")


@contextlib.contextmanager
def _as_a_hub() -> Iterator[None]:
    """An answer that is not a hub's, as of a web page, is an error of the address."""
    try:
        yield
    except errors.HFValidationError:
        raise
    except (ValueError, TypeError, KeyError, AttributeError):
        _refuse_endpoint()


def _refuse_endpoint() -> None:
    raise UserError(f"{endpoint()} does not answer as a hub does; check HF_ENDPOINT, and what stands between")


def known_sizes(repository: Repository) -> dict[str, int] | None:
    """All files of the commit and their bytes, as the library noted them when it fetched some; None if it did not."""
    try:
        files = huggingface_hub.get_cached_repo_tree(**repository.arguments)
    except (errors.CachedRepoTreeNotFoundError, OSError):
        return None
    return {file.path: file.size for file in files}


def list_files(repository: Repository) -> dict[str, HubFile]:
    """All files of the commit, by name, in one request or, of thousands of files, a few."""
    with hub_errors(repository.title):
        _check_access()
        with _as_a_hub():
            return {entry["path"]: _hub_file(entry) for entry in _listing(repository) if entry["type"] == "file"}


def _listing(repository: Repository) -> Iterator[dict[str, Any]]:
    """What the hub's listing says, page by page. The library's own call would wait without end for a silent hub."""
    address = f"{constants.ENDPOINT}/api/models/{repository.name.repo}/tree/{repository.name.revision}"
    query = "recursive=true&expand=false"
    while query:
        response = http_backoff("GET", f"{address}?{query}", headers=build_hf_headers(), timeout=TIMEOUT_S)
        hf_raise_for_status(response)
        yield from response.json()
        # of the next page's address, which may be that of another host, no more than where it begins
        query = urlsplit(response.links.get("next", {}).get("url", "")).query


def _hub_file(entry: dict[str, Any]) -> HubFile:
    lfs = entry.get("lfs")
    return HubFile(
        name=entry["path"],
        num_bytes=int(entry["size"]),
        sha256=lfs["oid"] if lfs else None,
        git_sha1=None if lfs else entry["oid"],
    )


class _Silent(tqdm):
    """No bar: small files take no time."""

    def __init__(self, *words: Any, **options: Any) -> None:
        super().__init__(*words, **options | {"disable": True})


def fetch_small(repository: Repository, files: Sequence[HubFile]) -> None:
    """Fetches small files; the library also notes all names of the commit, for the next time."""
    _remove_cut_off(repository, files)
    with hub_errors(repository.title):
        with _of_another_length(*files):
            huggingface_hub.snapshot_download(
                **repository.arguments,
                allow_patterns=[file.name for file in files],
                endpoint=constants.ENDPOINT,
                tqdm_class=_Silent,
            )
        for file in files:
            if not (repository.folder / file.name).exists():  # the library takes what is there if the hub falls silent
                raise UserError(f"{repository.title}: {file.name} could not be fetched from {endpoint()}; try again")
            _check_file(repository.folder / file.name, file)


def fetch(repository: Repository, files: Sequence[HubFile], *, on_bytes: Callable[[int], None]) -> None:
    """Fetches large files, several at a time, and checks each as it arrives.

    Args:
        repository: they go to its folder; one that is there already is checked only.
        files: in the order in which they are begun.
        on_bytes: told how many bytes have come, from any thread; below 0 where some come again.

    Raises:
        UserError: of the first that failed; none is begun after it, those that are under way are finished.
        KeyboardInterrupt: Ctrl-C ends all of them at once.
    """
    stop = threading.Event()
    counter = _counter(on_bytes, stop=stop)

    def fetch_one(file: HubFile) -> None:
        with _of_another_length(file):
            path = huggingface_hub.hf_hub_download(
                **repository.arguments, filename=file.name, endpoint=constants.ENDPOINT, tqdm_class=counter
            )
        _check_file(Path(path), file)

    with hub_errors(repository.title):
        _check_access()
        _remove_stale(repository)
        _remove_cut_off(repository, files)
        _in_threads(fetch_one, files, stop=stop)


@contextlib.contextmanager
def _of_another_length(*files: HubFile) -> Iterator[None]:
    """The library's refusal of a file that came whole, but too short or too long: one of these."""
    try:
        yield
    except OSError as error:
        if "onsistency check" not in str(error):
            raise
        names = ", ".join(file.name for file in files)
        sizes = f" ({files[0].num_bytes:,} bytes)" if len(files) == 1 else ""
        raise UserError(f"{names}: came with another length than the hub lists{sizes}; try again, {KEPT}") from None


def _counter(on_bytes: Callable[[int], None], *, stop: threading.Event) -> Any:
    """-> what the library takes for a class of progress bars: bytes are passed on, and a stop gets through."""

    class Counter:
        def __init__(self, *words: Any, **options: Any) -> None: ...

        def __enter__(self) -> "Counter":
            return self

        def __exit__(self, *error: object) -> None: ...

        def update(self, num_bytes: float | None = 1) -> None:
            if stop.is_set():
                raise _Stopped
            on_bytes(int(num_bytes or 0))

        def update_transfer(self, num_bytes: float | None = 1) -> None: ...  # the same bytes on their way

        def set_postfix_str(self, *words: Any, **options: Any) -> None: ...

        set_transfer_postfix_str = set_description = set_description_str = refresh = set_postfix_str

        def close(self) -> None: ...

    return Counter


def _in_threads(work: Callable[[HubFile], None], files: Iterable[HubFile], *, stop: threading.Event) -> None:
    """Does the work of all files. Threads that the end of the program does not wait for: a file may take an hour."""
    waiting: SimpleQueue[HubFile] = SimpleQueue()
    failures: list[BaseException] = []
    for file in files:
        waiting.put(file)

    def run() -> None:
        while not failures:
            try:
                work(waiting.get_nowait())
            except (Empty, _Stopped):
                return
            except BaseException as error:
                failures.append(error)

    threads = [threading.Thread(target=run, daemon=True) for _ in range(NUM_AT_ONCE)]
    for thread in threads:
        thread.start()
    try:
        for thread in threads:
            thread.join()
    except BaseException:
        stop.set()
        for thread in threads:
            thread.join(timeout=1)  # long enough to take away what they had begun
        raise
    if failures:
        raise failures[0]


def _check_file(path: Path, file: HubFile) -> None:
    """Raises UserError for a file that is not the one that the hub lists, and takes it away."""
    got = path.stat().st_size
    if got != file.num_bytes:
        what = f"got {got:,} bytes, the hub lists {file.num_bytes:,}"
    elif _hash(path, file) != (file.sha256 or file.git_sha1):
        what = "its content is not that which the hub lists (by its hash)"
    else:
        return
    _remove(path)
    raise UserError(
        f"{file.name}: {what}; it was removed: run the same command again, and if that is no better, something between "
        f"here and {endpoint()} changes it"
    )


def _remove(path: Path) -> None:
    """Takes a file out of the cache: the name in the snapshot, and the content that it is a link to."""
    content = path.resolve()
    path.unlink(missing_ok=True)
    content.unlink(missing_ok=True)


def _remove_cut_off(repository: Repository, files: Iterable[HubFile]) -> None:
    """Takes away what has another length than is listed, as a copy of the cache leaves it that was not finished."""
    for file in files:
        path = repository.folder / file.name
        if path.is_file() and path.stat().st_size != file.num_bytes:
            _remove(path)


def _hash(path: Path, file: HubFile) -> str:
    if file.sha256:
        return hash_file(path)
    data = path.read_bytes()
    return hashlib.sha1(f"blob {len(data)}\0".encode() + data, usedforsecurity=False).hexdigest()


def _remove_stale(repository: Repository) -> None:
    """Takes away what killed processes had begun to fetch of this model: the library begins each file anew.

    A part that a process is writing is locked by it, and stays.
    """
    folder = repository.cache / repository.name.folder_name
    num_bytes = 0
    for part in (folder / "blobs").glob("*.incomplete"):
        lock = repository.cache / ".locks" / folder.name / f"{part.name.partition('.')[0]}.lock"
        try:
            lock.parent.mkdir(parents=True, exist_ok=True)
            with WeakFileLock(lock, timeout=LOCK_S):
                size = part.stat().st_size
                part.unlink()
        except OSError:  # a TimeoutError, if it is locked
            continue
        num_bytes += size
    if num_bytes:
        logger.info(
            f"{repository.name.repo}: {num_bytes / 1e6:,.1f} MB of files removed that another run had not finished"
        )


def read_start(repository: Repository, file: HubFile, *, num_bytes: int) -> bytes:
    """The first bytes of a file on the hub; no more of it is fetched than the network has on its way."""
    url = huggingface_hub.hf_hub_url(
        repository.name.repo, file.name, revision=repository.name.revision, endpoint=constants.ENDPOINT
    )
    headers = build_hf_headers() | {"Range": f"bytes=0-{num_bytes - 1}", "Accept-Encoding": "identity"}
    start = b""
    with hub_errors(repository.title):
        _check_access()
        with get_session().stream("GET", url, headers=headers, timeout=TIMEOUT_S) as response:
            hf_raise_for_status(response)
            for chunk in response.iter_bytes():
                start += chunk
                if len(start) >= num_bytes:
                    break
    return start[:num_bytes]


@contextlib.contextmanager
def hub_errors(name: HubName, *, known: str | None = None) -> Iterator[None]:
    """What the library raises becomes one line that says what to do, and it logs nothing itself.

    Args:
        name: stands first in the line.
        known: a commit that is in the cache, for a user whose network is down.
    """
    library = logging.getLogger("huggingface_hub")
    level = library.level
    library.setLevel(logging.CRITICAL)
    try:
        yield
    except Exception as error:
        if isinstance(error, UserError):
            raise UserError(str(error) if str(error).startswith(name.repo) else f"{name}: {error}") from None
        if (line := _describe(error, name=name, known=known)) is None:
            raise
        raise UserError(f"{name}: {line}") from None
    finally:
        library.setLevel(level)


def _describe(error: BaseException, *, name: HubName, known: str | None) -> str | None:
    """An error of the library -> what it means and what to do; None for one that is not about the hub."""
    if isinstance(error, errors.LocalEntryNotFoundError) and error.__cause__ is not None:
        return _describe(error.__cause__, name=name, known=known)
    if isinstance(error, errors.HFValidationError):
        return "no name that a model on the hub can have"
    if isinstance(error, errors.OfflineModeIsEnabled):
        return "not in the cache, and HF_HUB_OFFLINE is set"
    if isinstance(error, errors.HfHubHTTPError):
        return _describe_answer(error, name=name)
    if isinstance(error, errors.FileMetadataError):
        return f"{endpoint()} does not answer as a hub does; check HF_ENDPOINT, and what stands between"
    in_cache = f"; commit {known} is in the cache: HF_HUB_OFFLINE=1 takes it, and so does @{known}" if known else ""
    if isinstance(error, errors.HTTPError):
        return f"{endpoint()} cannot be reached ({type(error).__name__}); try again, {KEPT}{in_cache}"
    if isinstance(error, errors.LocalEntryNotFoundError):
        return f"could not be fetched from {endpoint()}; try again, {KEPT}{in_cache}"
    is_transport = type(error).__module__.partition(".")[0] in TRANSPORTS or isinstance(error, RuntimeError)
    if is_transport and not is_full(error):  # a full disk is told by who knows which one
        return f"could not be fetched from {endpoint()} ({type(error).__name__}); try again, {KEPT}"
    return None


def _describe_answer(error: errors.HfHubHTTPError, *, name: HubName) -> str:
    """An answer of the hub that is a refusal -> what it means and what to do."""
    has_token = huggingface_hub.get_token() is not None
    status = error.response.status_code
    page = f"{endpoint()}/{name.repo}"
    if isinstance(error, errors.GatedRepoError):
        if has_token:
            return f"gated, and the account of the token (HF_TOKEN) has no access: accept its terms at {page}"
        return f"gated: accept its terms at {page}, then set HF_TOKEN to a token of that account (or: hf auth login)"
    if isinstance(error, errors.DisabledRepoError):
        return f"the hub has switched it off; see {page}"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"no revision {name.revision!r}; its branches, tags and commits are at {page}/tree/main"
    if isinstance(error, errors.RepositoryNotFoundError):
        private = "the token (HF_TOKEN) does not open it" if has_token else "it needs a token (HF_TOKEN)"
        return f"no such model on {endpoint()} and no such folder here; check the name, or, if it is private, {private}"
    if isinstance(error, errors.RemoteEntryNotFoundError):
        return f"a file that was listed is gone from {endpoint()}; try again, {KEPT}"
    if status == 401:
        return f"{endpoint()} does not know the token (HF_TOKEN, or that of hf auth login); make a new one, or unset it"
    if status == 403:
        return f"{endpoint()} forbids it; see {page}, and what the token (HF_TOKEN) may read"
    if status == 429:
        help_ = "" if has_token else "; with a token (HF_TOKEN) it allows more"
        return f"{endpoint()} was asked too often; try again later, {KEPT}{help_}"
    return f"{endpoint()} answers {status}; try again later, {KEPT}"
