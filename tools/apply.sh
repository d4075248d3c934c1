#!/bin/bash
# apply.sh CHECKOUT: the codemod as one commit, then the hand patches (3-way against the blobs of /tmp/h/vocab's branch `one-vocabulary`)
set -e
here=$(dirname $(realpath $0)); cd "$1"
git fetch -q /tmp/h/vocab one-vocabulary
python3 $here/rename.py .
git add -A; git commit -qm "One word for one thing, in names, options, keys and files"
git am -3 $here/patches/*.patch
