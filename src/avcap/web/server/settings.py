"""What a server allows and how long it waits. Everything is closed unless it is opened here. No torch."""

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one request, and all of them together, may take.

    Attributes:
        file_bytes: Of one video, audio or image, however it comes.
        body_bytes: Of one request.
        held_bytes: Of all requests that are being read or answered.
        media_s: Length of a video or audio, or of the interval of it that is asked for.
        parts: Video, audio, images and texts of a request.
        answers: The most that n may be.
        waiting: Requests under way, those that are being answered included; more of them get 429.
        body_timeout_s: In which a request has to arrive.
        decode_timeout_s: For decoding one file, and for encoding it.
        request_timeout_s: From a request's arrival to its last token.
    """

    file_bytes: int = 100 * 2**20
    body_bytes: int = 140 * 2**20
    held_bytes: int = 2**30
    media_s: float = 1800.0
    parts: int = 300
    answers: int = 16
    waiting: int = 64
    body_timeout_s: float = 60.0
    decode_timeout_s: float = 60.0
    request_timeout_s: float = 600.0


@dataclass(frozen=True, kw_only=True)
class Access:
    """Who may ask, and what may be opened for them.

    Attributes:
        key: What stands behind "Authorization: Bearer"; None: nobody needs one.
        hosts: Names under which the server is asked; others are refused, so that no page elsewhere reaches it by a name
            of its own. Empty: any.
        origins: Pages of other sites that may ask.
        folders: What file: URLs may name lies in one of these.
        fetch_hosts: Hosts, or HOST:PORT, from which http(s): URLs are fetched; "*": any with a public address.
        fetch_private: Whether hosts that are named in `fetch_hosts` may have private or loopback addresses.
    """

    key: str | None = field(default=None, repr=False)
    hosts: frozenset[str] = frozenset()
    origins: tuple[str, ...] = ()
    folders: tuple[Path, ...] = ()
    fetch_hosts: frozenset[str] = frozenset()
    fetch_private: bool = False


@dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """How a server runs.

    Attributes:
        name: What its model is called in requests.
        batch_size: Answers that are written at a time.
        gather_s: How long a request that comes alone waits for others.
        kept_bytes: Memory for the features of videos that were asked about lately.
        unload_after_s: After so long without a request the model leaves memory; None: never.
    """

    name: str
    limits: Limits = field(default_factory=Limits)
    access: Access = field(default_factory=Access)
    batch_size: int = 8
    gather_s: float = 0.005
    kept_bytes: int = 2 * 2**30
    unload_after_s: float | None = None
