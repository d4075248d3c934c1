"""Detailed audio-visual video captions. `from avcap import Captioner` is the way in."""

from typing import TYPE_CHECKING, Any

from avcap.errors import MediaError, UserError

if TYPE_CHECKING:
    from avcap.infer.captioner import Captioner

__version__ = "0.1.0"
__all__ = ["Captioner", "MediaError", "UserError", "__version__"]


def __getattr__(name: str) -> Any:
    """Captioner comes when it is asked for: it brings torch, which takes seconds to import."""
    if name == "Captioner":
        from avcap.infer.captioner import Captioner

        return Captioner
    raise AttributeError(f"module 'avcap' has no attribute {name!r}")
