"""A real HTTP server on 127.0.0.1 that answers what the hub's library asks of the hub, or misbehaves as a test says.

    with FakeHub() as hub:
        commit = hub.publish("org/name", folder)     # HF_ENDPOINT=hub.url

Files of weights are LFS files, as on the hub. `asked` lists all requests. By hand: python tests/support/fake_hub.py
org/name=FOLDER ...
"""

import hashlib
import json
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

LFS = (".safetensors", ".bin", ".pt", ".gguf")
API = re.compile(r"/api/models/(?P<repo>[^/]+/[^/]+)(?:/(?P<what>revision|tree)/(?P<revision>.+))?")
FILE = re.compile(r"/(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<file>.+)")
PIECE = 2**16


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One request as it came in, and how many bytes of a body were written."""

    method: str
    path: str
    headers: dict[str, str]
    host: str
    sent: list[int] = field(default_factory=lambda: [0])


@dataclass
class Commit:
    """Files of one commit: name -> content."""

    files: dict[str, bytes]

    @property
    def sha(self) -> str:
        digest = hashlib.sha1()
        for name, data in sorted(self.files.items()):
            digest.update(name.encode() + hashlib.sha256(data).digest())
        return digest.hexdigest()


@dataclass
class FakeHub:
    """`with FakeHub() as hub`: the server runs within the block. Its fields may be changed meanwhile."""

    token: str | None = None
    """If it is there, what is gated opens to it, and any other token is unknown."""
    gated: set[str] = field(default_factory=set)
    statuses: list[int] = field(default_factory=list)
    """Refusals that are played first, one a request."""
    is_page: bool = False
    """Everything is answered by a web page."""
    hangs_at: str = ""
    """Requests of an address with this in it are taken and never answered."""
    page: int = 1000
    """Files of a page of a listing."""
    moved: dict[str, str] = field(default_factory=dict)
    """Old name -> the new one, to which the hub sends whoever asks."""
    via_cdn: bool = False
    """LFS files are at a signed address of another host."""
    takes_ranges: bool = True
    cut_at: dict[str, list[int]] = field(default_factory=dict)
    """File -> after how many bytes each of its next downloads breaks off."""
    change: dict[str, Callable[[bytes], bytes]] = field(default_factory=dict)
    """File -> what is sent in place of its bytes, of the length that is listed."""
    listed_bytes: dict[str, int] = field(default_factory=dict)
    """File -> its length in listings, where that is a lie."""
    piece_s: dict[str, float] = field(default_factory=dict)
    """File -> seconds between two pieces of 64 kB."""
    asked: list[Asked] = field(default_factory=list)

    def __enter__(self) -> "FakeHub":
        self.closing = threading.Event()
        self._branches: dict[str, dict[str, Commit]] = {}
        self._server, self._cdn = (self._serve(host) for host in ("127.0.0.1", "localhost"))
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self.cdn_url = f"http://localhost:{self._cdn.server_address[1]}"
        return self

    def __exit__(self, *error: object) -> None:
        self.closing.set()
        for server in (self._server, self._cdn):
            server.shutdown()
            server.server_close()

    def _serve(self, host: str) -> ThreadingHTTPServer:
        handler = type("Handler", (_Handler,), {"hub": self, "host": host})
        server = _Server(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return server

    def publish(self, repo: str, folder: Path | None = None, *, branch: str = "main", **files: bytes) -> str:
        """A folder's files, and others by `name__ext=bytes`, become the newest commit of a branch -> its hash."""
        held = {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()} if folder else {}
        held |= {name.replace("__", "."): data for name, data in files.items()}
        commit = Commit(files=held)
        branches = self._branches.setdefault(repo, {})
        branches[branch] = branches[commit.sha] = commit
        return commit.sha

    def commit(self, repo: str, revision: str) -> Commit | None:
        return self._branches.get(repo, {}).get(revision)

    def knows(self, repo: str) -> bool:
        return repo in self._branches

    def by_hash(self, sha256: str) -> tuple[str, bytes]:
        for branches in self._branches.values():
            for commit in branches.values():
                for name, data in commit.files.items():
                    if hashlib.sha256(data).hexdigest() == sha256:
                        return name, data
        raise KeyError(sha256)

    def fetched(self, *, method: str = "GET") -> list[str]:
        """Names of the files whose content was asked for, in order."""
        found = [FILE.fullmatch(one.path) for one in self.asked if one.method == method]
        return [one["file"] for one in found if one]

    @contextmanager
    def watch(self) -> Iterator[list[Asked]]:
        """The requests of the block, and no others."""
        self.asked.clear()
        yield self.asked


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128  # the library fetches side by side; connections beyond the queue are reset

    def handle_error(self, request: object, client_address: object) -> None: ...  # whoever asked has gone


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: FakeHub
    host: str

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def log_message(self, *words: object) -> None: ...

    def answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.asked = Asked(method=self.command, path=path, headers=headers, host=self.host)
        self.hub.asked.append(self.asked)
        if self.host == "localhost":
            name, data = self.hub.by_hash(path.rpartition("/")[2])
            self.send_file(name, data)
        elif self.hub.hangs_at and self.hub.hangs_at in path:
            self.hub.closing.wait()
            self.close_connection = True
        elif old := next((old for old in self.hub.moved if f"/{old}" in path), None):
            self.send(b"", status=307, headers={"Location": self.path.replace(old, self.hub.moved[old])})
        elif self.hub.is_page:
            self.send(b"<html>Please log in to this network</html>", kind="text/html")
        elif self.hub.statuses:
            self.refuse(self.hub.statuses.pop(0), "")
        elif found := API.fullmatch(path):
            self.answer_api(found["repo"], found["what"], unquote(found["revision"] or "main"))
        elif found := FILE.fullmatch(path):
            self.answer_file(found["repo"], found["revision"], found["file"])
        else:
            self.refuse(404, "")

    def is_refused(self, repo: str) -> bool:
        """Whether repository or token were refused, as the hub does it."""
        given = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if given and self.hub.token is not None and given != self.hub.token:
            self.refuse(401, "", message="Invalid credentials in Authorization header")
        elif not self.hub.knows(repo):
            self.refuse(404 if given else 401, "RepoNotFound", message=f"Repository not found {given}")
        else:
            return False
        return True

    def answer_api(self, repo: str, what: str | None, revision: str) -> None:
        if self.is_refused(repo):
            return
        commit = self.hub.commit(repo, revision)
        if commit is None:
            self.refuse(404, "RevisionNotFound")
        elif what == "tree":
            self.answer_listing(commit)
        else:
            info = {
                "id": repo,
                "modelId": repo,
                "sha": commit.sha,
                "private": False,
                "disabled": False,
                "tags": [],
                "gated": repo in self.hub.gated and "manual",
                "downloads": 0,
                "likes": 0,
                "siblings": [{"rfilename": name} for name in commit.files],
            }
            self.send(json.dumps(info).encode())

    def answer_listing(self, commit: Commit) -> None:
        """One page; its `Link` says where the next one begins."""
        begin = int(parse_qs(urlsplit(self.path).query).get("cursor", ["0"])[0])
        end = begin + self.hub.page
        link = f'<{self.hub.url}{urlsplit(self.path).path}?recursive=true&cursor={end}>; rel="next"'
        entries = [self.entry(name, data) for name, data in sorted(commit.files.items())[begin:end]]
        self.send(json.dumps(entries).encode(), headers={"Link": link} if end < len(commit.files) else None)

    def entry(self, name: str, data: bytes) -> dict[str, object]:
        size = self.hub.listed_bytes.get(name, len(data))
        entry = {"type": "file", "path": name, "size": size, "oid": git_sha1(data)}
        if name.endswith(LFS):
            entry["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": size, "pointerSize": 134}
        return entry

    def answer_file(self, repo: str, revision: str, file: str) -> None:
        if self.is_refused(repo):
            return
        commit = self.hub.commit(repo, revision)
        given = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if commit is None:
            return self.refuse(404, "RevisionNotFound")
        if repo in self.hub.gated and (self.hub.token is None or given != self.hub.token):
            return self.refuse(403 if given else 401, "GatedRepo", message=f"Access to {repo} is restricted {given}")
        if file not in commit.files:
            return self.refuse(404, "EntryNotFound")
        data = commit.files[file]
        sha256 = hashlib.sha256(data).hexdigest()
        etag = sha256 if file.endswith(LFS) else git_sha1(data)
        about = {"X-Repo-Commit": commit.sha, "ETag": f'"{etag}"'}
        if file.endswith(LFS):
            about |= {"X-Linked-ETag": f'"{sha256}"', "X-Linked-Size": str(self.hub.listed_bytes.get(file, len(data)))}
        if self.hub.via_cdn and file.endswith(LFS):
            about["Location"] = f"{self.hub.cdn_url}/cdn/{sha256}?X-Signature=signed-secret"
            return self.send(b"", status=302, headers=about)
        self.send_file(file, data, headers=about)

    def send_file(self, name: str, data: bytes, *, headers: dict[str, str] | None = None) -> None:
        data = self.hub.change.get(name, lambda data: data)(data)
        found = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")) if self.hub.takes_ranges else None
        status, about = 200, {"Accept-Ranges": "bytes"} | (headers or {})
        if found:
            begin, end = int(found[1]), min(int(found[2] or len(data)), len(data) - 1) + 1
            about["Content-Range"] = f"bytes {begin}-{end - 1}/{len(data)}"
            status, data = 206, data[begin:end]
        cuts = self.hub.cut_at.get(name, []) if self.command == "GET" else []
        self.send(
            data,
            status=status,
            headers=about,
            cut=cuts.pop(0) if cuts else None,
            pause_s=self.hub.piece_s.get(name, 0),
            kind="application/octet-stream",
        )

    def send(
        self,
        data: bytes,
        *,
        status: int = 200,
        headers: dict[str, str] | None = None,
        cut: int | None = None,
        pause_s: float = 0,
        kind: str = "application/json",
    ) -> None:
        self.send_response(status)
        for name, value in ({"Content-Type": kind, "Content-Length": str(len(data))} | (headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        try:
            for begin in range(0, len(data), PIECE):
                piece = data[begin : min(begin + PIECE, len(data) if cut is None else cut)]
                self.wfile.write(piece)
                self.asked.sent[0] += len(piece)
                time.sleep(pause_s)
                if cut is not None and begin + PIECE >= cut:
                    self.close_connection = True
                    return
        except OSError:  # whoever asked has gone
            self.close_connection = True

    def refuse(self, status: int, code: str, *, message: str = "") -> None:
        headers = {name: value for name, value in (("X-Error-Code", code), ("X-Error-Message", message)) if value}
        self.send(json.dumps({"error": message}).encode(), status=status, headers=headers)


def git_sha1(data: bytes) -> str:
    """What git, and the hub, call a file that is no LFS file."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


if __name__ == "__main__":
    with FakeHub() as by_hand:
        for word in sys.argv[1:]:
            repo, _, folder = word.partition("=")
            print(f"{repo}@{by_hand.publish(repo, Path(folder))}")
        print(f"HF_ENDPOINT={by_hand.url}", flush=True)
        while True:
            time.sleep(3600)
