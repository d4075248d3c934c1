#!/bin/bash
# rebuild.sh: a pristine clone of vocab's HEAD at try2, codemod, patches (3-way with the blobs of the last try)
cd /tmp/h/codemod; rm -rf try2; git clone -q /tmp/h/vocab try2; cd try2
git config user.name "$(git -C /work/main log -1 --format=%an)"; git config user.email "$(git -C /work/main log -1 --format=%ae)"
[ -d ../try ] && git fetch -q ../try HEAD:last-try
python3 ../rename.py .; git add -A; git commit -qm "One word for one thing, in names, options, keys and files"
git am -3 ../patches/*.patch 2>&1 | grep -v "^Applying" | tail -5
git branch -qD last-try 2>/dev/null; git log --oneline | head -3
