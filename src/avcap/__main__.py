"""`python -m avcap`: the same as the command `avcap`."""

from avcap.cli import main

if __name__ == "__main__":
    main()
