"""Captions, truth and events in every form become cases."""
