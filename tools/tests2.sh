cd /tmp/h/codemod/try
export OMP_NUM_THREADS=1
( nice ../venv/bin/pytest -v --tb=short -p no:cacheprovider tests/stages --deselect tests/stages/test_audit_audio.py > ../ta.log 2>&1; nice ../venv/bin/pytest -v --tb=short -p no:cacheprovider tests/test_[a-bd-z]*.py tests/test_cli_*.py tests/test_config.py tests/data_room tests/web > ../td.log 2>&1; echo done >> ../td.log ) &
( nice ../venv/bin/pytest -v --tb=short -p no:cacheprovider tests/model tests/lmms tests/infer -k "not 72_billion" > ../tb.log 2>&1; nice ../venv/bin/pytest -v --tb=short -p no:cacheprovider tests/media > ../tc.log 2>&1; nice ../venv/bin/pytest -v --tb=short -p no:cacheprovider tests/train tests/judge tests/world > ../te.log 2>&1; echo done >> ../te.log ) &
wait
