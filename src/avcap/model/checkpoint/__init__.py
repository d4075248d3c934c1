"""Checkpoint folders: what they are, loading, fetching, converting and checking them."""
