"""One file for each form in which captions leave: what its reader reads, and what it would lose silently."""
