"""What was found out about an engine, kept so that it is asked once: per server, model and settings."""

import contextlib
import hashlib
import time
from dataclasses import dataclass
from pathlib import Path

from avcap.errors import UserError
from avcap.files.write import write_text
from avcap.records import AudioArrival, from_json, to_json

KEPT_S = 24 * 3600.0
"""Another server may stand at the same address tomorrow."""
PROOF_VERSION = 2
"""Of proof.py: what an earlier one found is found out again."""


@dataclass(frozen=True, kw_only=True)
class Proof:
    """Whether audio arrives.

    Attributes:
        arrival: None: none was sent.
        why: How that shows, in words.
        is_refused: The engine takes no part of audio at all.
        tokens_per_s: Tokens that a second of audio counts, where they grow evenly.
        tells_audio: The engine counts audio apart from the rest.
        counts_bytes: Its tokens follow the bytes that it is sent, and prove nothing of a clip either.
    """

    arrival: AudioArrival | None = None
    why: str = ""
    is_refused: bool = False
    tokens_per_s: float | None = None
    tells_audio: bool = False
    counts_bytes: bool = False


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What was found out about an engine.

    Attributes:
        dialect: Its name.
        how: How the dialect was found out.
        frames_because: What the engine said when it refused video in its dialect's form; "": it did not.
        audio: Whether audio arrives.
        context_tokens: What the server says about how long a prompt with its answer may be.
        checked_at: When, in seconds since 1970.
    """

    dialect: str
    how: str
    frames_because: str = ""
    audio: Proof = Proof()
    context_tokens: int | None = None
    checked_at: float = 0.0


@dataclass(frozen=True, kw_only=True)
class FindingsStore:
    """Findings in a folder, one file for each engine and use of it. `folder` None: none are kept."""

    folder: Path | None

    def get(self, name: str, *, use: str) -> Findings | None:
        """Name of an engine as captions have it, and what of videos is sent -> what was found out lately, or None."""
        path = self._path(name, use)
        if path is None or not path.is_file():
            return None
        try:
            found = from_json(path.read_text(encoding="utf-8"), Findings)
        except (OSError, UnicodeDecodeError, UserError):
            return None  # of another version: it is found out again
        return found if 0 <= time.time() - found.checked_at < KEPT_S else None

    def put(self, found: Findings, name: str, *, use: str) -> None:
        """Keeps findings; audio that is dropped is looked for again each time: the server may have been mended."""
        path = self._path(name, use)
        if path is None:
            return
        with contextlib.suppress(OSError, UserError):  # what cannot be kept is found out again
            if found.audio.arrival == "dropped" or found.audio.is_refused:
                path.unlink(missing_ok=True)
                return
            path.parent.mkdir(parents=True, exist_ok=True)
            write_text(path, to_json(found) + "\n")

    def _path(self, name: str, use: str) -> Path | None:
        digest = hashlib.sha256(f"{PROOF_VERSION} {name} {use}".encode()).hexdigest()
        return None if self.folder is None else self.folder / f"{digest[:32]}.json"
