"""What tests of several rooms share: files and models made small, servers and language models played by a script."""

from pathlib import Path

ASSETS = Path(__file__).parents[1] / "assets"
"""Recorded cases of the released code, in its layouts."""
