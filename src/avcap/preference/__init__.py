"""Captions and verdicts become pairs to learn from."""
