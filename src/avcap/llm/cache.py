"""Replies that were paid for, kept in one SQLite file: equal requests are asked once, by however many processes.

A request is known by `reply_key`: sha256 of the server's URL, the model's name and everything in the request, with what
of it the server refuses (which is remembered here, too: a second run asks as the first did). The URL
is part of it because the name alone does not say which weights answer ("default", "gpt-3.5-turbo" on a llama.cpp
server): a needless second call costs money, a verdict of another model would cost the result. Failures are never kept.

A reply is committed before it is handed on. Whoever asks holds a claim meanwhile, so nobody else pays for the same; a
claim lasts `LEASE_S` and is renewed by a thread, so that of a killed process is free again after that time. Write-ahead
logging makes a kill at any moment harmless; a power cut may lose the last replies. The file must be on a local disk.
"""

import contextlib
import hashlib
import json
import os
import sqlite3
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from avcap.errors import UserError
from avcap.llm.types import ChatRequest, Choice, Reply, TokenLogprobs, described

LEASE_S = 15.0
LOCK_WAIT_S = 60.0
"""How long a write waits for other processes' writes, each of which takes less than a millisecond."""
APPLICATION_ID = 0x61766361
"""Stands in the file's header ("avca"), so that another program's database is refused instead of written to."""
VERSION = 1

SCHEMA = """
CREATE TABLE IF NOT EXISTS replies (
    key TEXT PRIMARY KEY, model TEXT NOT NULL, text TEXT NOT NULL, finished INTEGER NOT NULL,
    input_tokens INTEGER NOT NULL, output_tokens INTEGER NOT NULL, replied_at REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS extras (key TEXT PRIMARY KEY, data TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS dialects (
    server TEXT NOT NULL, model TEXT NOT NULL, dialect TEXT NOT NULL, PRIMARY KEY (server, model)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS claims (
    key TEXT PRIMARY KEY, owner TEXT NOT NULL, expires_at REAL NOT NULL
) WITHOUT ROWID;
"""


def reply_key(request: ChatRequest, *, server: str, model: str, dropped: Sequence[str] = ()) -> str:
    """Request to a model of a server -> its key in the cache. `dropped`: parts of it that are not sent."""
    whole = {"server": server, "model": model, **described(request)}
    if dropped:
        whole["dropped"] = list(dropped)
    return hashlib.sha256(json.dumps(whole, sort_keys=True, ensure_ascii=True).encode()).hexdigest()


class ReplyCache:
    """The replies in one file. Safe to use from several threads and processes; `hits` and `misses` count `claim`s."""

    def __init__(self, path: str | Path, *, lease_s: float = LEASE_S) -> None:
        self.path = Path(path)
        self.hits = self.misses = 0
        self._lease_s = lease_s
        self._owner = uuid.uuid4().hex
        self._lock = threading.RLock()
        self._closed = threading.Event()
        self._renewer: threading.Thread | None = None
        with self._reported():
            self._database = _open(self.path)

    def get(self, key: str) -> Reply | None:
        """Key -> the reply kept under it, or None. Counts nothing."""
        with self._reported():
            row = self._database.execute(
                "SELECT text, finished, input_tokens, output_tokens, data FROM replies LEFT JOIN extras USING (key) "
                "WHERE key = ?",
                (key,),
            ).fetchone()
        if row is None:
            return None
        reply = Reply(text=row[0], finished=bool(row[1]), input_tokens=row[2], output_tokens=row[3])
        return replace(reply, **_extras(row[4])) if row[4] else reply

    def claim(self, key: str) -> Reply | bool:
        """Key -> the reply kept under it; or True: it is now the caller's to ask; or False: someone else is asking.

        True must be followed by `put` or `release`.
        """
        with self._lock:
            found = self.get(key) or self._claim_or_get(key)
            self.hits += isinstance(found, Reply)
            self.misses += found is True
        return found

    def put(self, key: str, reply: Reply, *, model: str) -> None:
        """Commits a reply and ends the claim on it. The first reply to a request stays: what was told stays true."""
        values = (key, model, reply.text, reply.finished, reply.input_tokens, reply.output_tokens, time.time())
        with self._transaction() as database:
            database.execute("INSERT OR IGNORE INTO replies VALUES (?, ?, ?, ?, ?, ?, ?)", values)
            if extras := {name: value for name in EXTRAS if (value := getattr(reply, name)) not in ((), None)}:
                data = json.dumps(extras, default=vars)
                database.execute("INSERT OR IGNORE INTO extras VALUES (?, ?)", (key, data))
            database.execute("DELETE FROM claims WHERE key = ? AND owner = ?", (key, self._owner))

    def release(self, key: str) -> None:
        """Ends the claim on a request that got no reply."""
        with self._transaction() as database:
            database.execute("DELETE FROM claims WHERE key = ? AND owner = ?", (key, self._owner))

    def dialect(self, *, server: str, model: str) -> str | None:
        """What `remember_dialect` was given last for this model of this server."""
        with self._reported():
            row = self._database.execute(
                "SELECT dialect FROM dialects WHERE server = ? AND model = ?", (server, model)
            ).fetchone()
        return None if row is None else str(row[0])

    def remember_dialect(self, dialect: str, *, server: str, model: str) -> None:
        with self._transaction() as database:
            database.execute("INSERT OR REPLACE INTO dialects VALUES (?, ?, ?)", (server, model, dialect))

    def __len__(self) -> int:
        with self._reported():
            return int(self._database.execute("SELECT count(*) FROM replies").fetchone()[0])

    def close(self) -> None:
        """Ends all claims that are still held, and closes the file."""
        self._closed.set()
        if self._renewer:
            self._renewer.join()
        with self._transaction() as database:
            database.execute("DELETE FROM claims WHERE owner = ?", (self._owner,))
        self._database.close()

    def _claim_or_get(self, key: str) -> Reply | bool:
        now = time.time()
        claimed = "SELECT 1 FROM claims WHERE key = ? AND expires_at >= ?"
        with self._reported():  # those who wait look often: they must not take the lock for writing each time
            if self._database.execute(claimed, (key, now)).fetchone():
                return False
        with self._transaction() as database:
            # Between `get` and here another process may have finished: look again inside the transaction.
            if reply := self.get(key):
                return reply
            database.execute("DELETE FROM claims WHERE key = ? AND expires_at < ?", (key, now))
            claim = (key, self._owner, now + self._lease_s)
            ours = database.execute("INSERT OR IGNORE INTO claims VALUES (?, ?, ?)", claim).rowcount == 1
        if ours and self._renewer is None:
            self._renewer = threading.Thread(target=self._renew, name="reply-cache-claims", daemon=True)
            self._renewer.start()
        return ours

    def _renew(self) -> None:
        """Keeps this process's claims from expiring while it lives."""
        while not self._closed.wait(self._lease_s / 3):
            # A file that cannot be written to is reported by the next `claim` or `put`.
            with contextlib.suppress(UserError), self._transaction() as database:
                expires_at = time.time() + self._lease_s
                database.execute("UPDATE claims SET expires_at = ? WHERE owner = ?", (expires_at, self._owner))

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """All statements inside are committed together, or not at all."""
        with self._reported():
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield self._database
            except BaseException:
                self._database.execute("ROLLBACK")
                raise
            self._database.execute("COMMIT")

    @contextlib.contextmanager
    def _reported(self) -> Iterator[None]:
        """One thread at a time; what SQLite complains about becomes a UserError that names the file."""
        with self._lock:
            try:
                yield
            except sqlite3.Error as error:
                raise UserError(
                    f"{self.path}: cannot be used as a cache of replies ({error}); expected a file that avcap wrote, "
                    f"on a local disk; move it away or name another --cache"
                ) from None


EXTRAS = ("others", "logprobs", "audio_tokens", "visual_tokens")
"""What few replies have."""


def _extras(text: str) -> dict[str, Any]:
    """What `put` wrote of a reply's extras -> the fields."""
    data = json.loads(text)
    data["others"] = tuple(Choice(**one) for one in data.get("others", ()))
    data["logprobs"] = tuple(
        TokenLogprobs(**{**one, "top": tuple((token, logprob) for token, logprob in one["top"])})
        for one in data.get("logprobs", ())
    )
    return data


def _open(path: Path) -> sqlite3.Connection:
    """Path -> connection to a cache with its tables, made if there is no file; sqlite3.Error if it is another thing."""
    if not path.exists():  # replies repeat captions: for their owner's eyes; SQLite gives its side files the same mode
        with contextlib.suppress(OSError):
            os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    database = sqlite3.connect(path, timeout=LOCK_WAIT_S, isolation_level=None, check_same_thread=False)
    try:
        _enter_wal(database)
        database.execute("PRAGMA synchronous = NORMAL")
        database.execute("BEGIN IMMEDIATE")
        application = database.execute("PRAGMA application_id").fetchone()[0]
        version = database.execute("PRAGMA user_version").fetchone()[0]
        empty = database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0
        if not (empty and application == 0) and (application, version) != (APPLICATION_ID, VERSION):
            raise sqlite3.DatabaseError("a database of another program or version")
        for statement in SCHEMA.split(";"):
            database.execute(statement)
        database.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        database.execute(f"PRAGMA user_version = {VERSION}")
        database.execute("COMMIT")
    except BaseException:
        database.close()
        raise
    return database


def _enter_wal(database: sqlite3.Connection) -> None:
    """Switches to write-ahead logging; SQLite does not wait for others here, so this does."""
    give_up_at = time.monotonic() + LOCK_WAIT_S
    while True:
        try:
            database.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > give_up_at:
                raise
            time.sleep(0.01)
