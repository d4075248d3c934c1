"""Prints constraints.txt: a known-good version of everything that avcap and its extras install, for pip -c.

    python tools/lock.py UV > constraints.txt          # `make lock` does it

uv resolves for Python 3.11 to 3.13 and every platform at once and writes markers where they differ. No hashes and no
addresses, so that any package index serves it, and no local versions: `torch==2.13.0` is met by a CPU build
(2.13.0+cpu) and by a CUDA build. The CUDA packages are left out, because a torch names its own exactly.
"""

import re
import subprocess
import sys

COMPILE = ["pip", "compile", "pyproject.toml", "--all-extras", "--universal", "--python-version", "3.11"]
QUIET = ["--no-annotate", "--no-header", "--upgrade", "--quiet"]
CUDA_PACKAGES = re.compile(r"(nvidia|cuda|triton)\b")
HEAD = "# Known-good versions, made by `make lock`; `pip install -c constraints.txt` takes these and no others.\n"


def without_cuda(resolved: str) -> str:
    """Lines of a resolution -> those that are no package of torch's CUDA build, without local versions."""
    kept = [line for line in resolved.splitlines() if line.strip() and not CUDA_PACKAGES.match(line)]
    return "".join(re.sub(r"\+[a-z0-9.]+", "", line) + "\n" for line in kept)


if __name__ == "__main__":
    done = subprocess.run([sys.argv[1], *COMPILE, *QUIET], stdout=subprocess.PIPE, text=True, check=True)
    sys.stdout.write(HEAD + without_cuda(done.stdout))
