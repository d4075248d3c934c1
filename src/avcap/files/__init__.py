"""One way to keep files: written whole or not at all, held by one process, claimed by one run. No torch."""
