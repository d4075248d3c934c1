"""avcap inside lmms-eval: a model for all of its video tasks, and captioning tasks of a world and of benchmarks.

model     entry point "lmms_eval.models" -> manifest.py -> model.py: lmms-eval --model avcap --model_args model=tiny
tasks     python -m avcap.lmms ... writes one: lmms-eval --include_path FOLDER --tasks avcap_world, avcap_vdc, ...
"""
