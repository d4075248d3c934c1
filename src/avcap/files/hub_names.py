"""Names of models on the hub, and the folders that its library keeps them in. Standard library only.

    org/name            the newest commit of its main branch
    org/name@revision   a branch, a tag, or a commit
    hf:org/name         the same, even if there is a folder org/name here

The library keeps a commit as HF_HOME/hub/models--org--name/snapshots/COMMIT (huggingface_hub, "Understand caching"):
from such a folder alone it is known what is in it.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from avcap.errors import UserError

HUB_PREFIX = "hf:"
GRAMMAR = "org/name or org/name@revision"
COMMIT = re.compile(r"[0-9a-f]{40}")
SNAPSHOTS = "snapshots"

_PART = r"[A-Za-z0-9](?:[\w.-]*[A-Za-z0-9_])?"
_NAME = re.compile(rf"(?P<repo>{_PART}/{_PART})(?:@(?P<revision>[\w.][\w./-]*))?", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class HubName:
    """A model on the hub.

    Attributes:
        repo: "org/name".
        revision: a branch, a tag or a commit; None for the main branch.
    """

    repo: str
    revision: str | None = None

    def __str__(self) -> str:
        return self.repo if self.revision is None else f"{self.repo}@{self.revision}"

    @property
    def is_pinned(self) -> bool:
        """Whether the revision is a whole commit, which nobody can move."""
        return self.revision is not None and COMMIT.fullmatch(self.revision) is not None

    @property
    def folder_name(self) -> str:
        """What the library calls the folder of the repository."""
        return f"models--{self.repo.replace('/', '--')}"


def read_hub_name(text: str) -> HubName | None:
    """What a user calls a model -> its name on the hub; None if it has not the form of one.

    Raises:
        UserError: it begins with "hf:", and the rest is no name.

    >>> read_hub_name("org/name@v1.0")
    HubName(repo='org/name', revision='v1.0')
    >>> read_hub_name("./org/name"), read_hub_name("out/run/checkpoint")
    (None, None)
    """
    is_forced = text.startswith(HUB_PREFIX)
    found = _NAME.fullmatch(text.removeprefix(HUB_PREFIX))
    bad = found is None or "--" in found["repo"] or ".." in text
    if found is None or bad:
        if is_forced:
            raise UserError(f"got {text!r}, expected {HUB_PREFIX}{GRAMMAR.replace(' or ', f' or {HUB_PREFIX}')}")
        return None
    return HubName(repo=found["repo"], revision=found["revision"])


def snapshot_name(folder: str | Path) -> HubName | None:
    """Folder -> the model and commit that it holds, if it is one that the hub's library made; else None.

    >>> snapshot_name("hub/models--org--name/snapshots/" + "0" * 40).repo
    'org/name'
    """
    folder = Path(folder).resolve()
    kind, *parts = folder.parent.parent.name.split("--")
    if folder.parent.name != SNAPSHOTS or not COMMIT.fullmatch(folder.name) or kind != "models" or len(parts) != 2:
        return None
    return read_hub_name(f"{'/'.join(parts)}@{folder.name}")


def folder_title(folder: str | Path) -> str:
    """Checkpoint folder -> how people call it: its name on the hub with its commit, or the folder's own name."""
    return str(snapshot_name(folder) or Path(folder).resolve().name)
