"""What a command may write over: files that the same command wrote. Asked before any work. No torch."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from avcap.files.claim import refuse_external
from avcap.records import read_jsonl, read_record, write_jsonl


def check_records(path: Path, record_type: type) -> None:
    """UserError if the file is there and has lines that are no such records."""
    refuse_external(
        path,
        is_ours=lambda file: all(True for _ in read_jsonl(file, record_type)),
        expected=f"a file of {record_type.__name__} records",
    )


def check_record(path: Path, record_type: type) -> None:
    """UserError if the file is there and is no such record."""
    refuse_external(
        path,
        is_ours=lambda file: bool(read_record(file, record_type)),
        expected=f"a {record_type.__name__}",
    )


def check_text(path: Path, *, sign: str, expected: str) -> None:
    """UserError if the file is there and lacks what all files of its kind hold."""
    refuse_external(path, is_ours=lambda file: sign.encode() in file.read_bytes(), expected=expected)


def write_records(path: Path, records: Iterable[Any], record_type: type) -> None:
    """Records -> a JSONL file, in the place of one of the same kind."""
    check_records(path, record_type)
    write_jsonl(path, records)
