"""Ollama: no video, and everything but text, image_url (as data) and input_audio is refused."""

from dataclasses import replace

from avcap.engines.frames import FRAMES

OLLAMA = replace(FRAMES, name="ollama", title="Ollama", counts_cached=False)
