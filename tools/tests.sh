cd /tmp/h/codemod/try
export OMP_NUM_THREADS=1
( nice ../venv/bin/pytest -v --tb=short -p no:cacheprovider tests/test_*.py tests/data_room tests/web tests/stages --deselect tests/stages/test_audit_audio.py > ../ta.log 2>&1; echo done >> ../ta.log ) &
( nice ../venv/bin/pytest -v --tb=short -p no:cacheprovider tests/model tests/lmms tests/infer tests/train tests/judge tests/world -k "not 72_billion" > ../tb.log 2>&1; nice ../venv/bin/pytest -v --tb=short -p no:cacheprovider tests/media > ../tc.log 2>&1; echo done >> ../tc.log ) &
wait
