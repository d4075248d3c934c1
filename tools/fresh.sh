#!/bin/bash
# a pristine clone of vocab HEAD at try/, renamed
cd /tmp/h/codemod; rm -rf try; git clone -q /tmp/h/vocab try
if [ ! -d venv ]; then python3 -m venv --without-pip venv; SP=venv/lib/python3.11/site-packages
echo "/tmp/base/lib/python3.11/site-packages" > $SP/zz_base.pth; echo "/tmp/h/codemod/try/src" > $SP/aa_avcap.pth
for f in /tmp/h/vocab/.venv/bin/*; do b=$(basename $f); case $b in python*|activate*|Activate*|pip*) ;; *) sed "1s|^#!.*|#!/tmp/h/codemod/venv/bin/python|" $f > venv/bin/$b; chmod +x venv/bin/$b;; esac; done; fi
python3 rename.py try
