"""Folders of videos: where captions go, in which form, in which shard, and which of them to believe."""
