"""What a folder of weights may be: our own, or one of somebody's releases. Standard library only."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass


def _alike(names: Iterable[str]) -> str:
    del names
    return ""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """A kind of checkpoint folder. As text it is how a person calls it."""

    title: str
    what_to_do: str = ""
    """Of a layout that does not run as it is: what makes a model of it, with {path}."""
    notes_of: Callable[[Iterable[str]], str] = _alike
    """Names of its tensors -> what is to be said of them beside the title, or ""."""

    @property
    def runs(self) -> bool:
        """Whether --model takes it as it is."""
        return not self.what_to_do

    @property
    def one(self) -> str:
        """The title with its article: "an avcap model folder"."""
        return f"{'an' if self.title[0].lower() in 'aeio' else 'a'} {self.title}"

    def __str__(self) -> str:
        return self.title
