"""The behaviour of the published code."""
