"""Names for content: of files, and of tensors. No torch until a tensor is hashed."""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

END_BYTES = 2**20
"""Of either end of a large file: trained weights differ everywhere."""


def hash_file(path: str | Path) -> str:
    """File -> sha256 of its content, 64 hex digits."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def hash_ends(paths: Iterable[Path]) -> str:
    """Large files -> sha256 of their names, sizes, and first and last MiB."""
    digest = hashlib.sha256()
    for path in paths:
        size = path.stat().st_size
        digest.update(f"{path.name} {size}\n".encode())
        with open(path, "rb") as handle:
            digest.update(handle.read(END_BYTES))
            handle.seek(max(0, size - END_BYTES))
            digest.update(handle.read(END_BYTES))
    return digest.hexdigest()


def hash_tensors(labelled: "Iterable[tuple[str, torch.Tensor]]", *, digest: Any) -> str:
    """Tensors of any device and shape, each with what is to be known of it, and a hash begun -> its hex digits."""
    import torch

    for label, tensor in labelled:
        # as bytes: NumPy has no bfloat16
        raw = tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
        digest.update(label.encode())
        digest.update(raw.data)
    return str(digest.hexdigest())
