"""The family of video-SALMONN 2."""
