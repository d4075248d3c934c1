"""avcap inside lmms-eval: a model for all of its video tasks, and a captioning task of a world.

model     entry point "lmms_eval.models" -> manifest.py -> model.py: lmms-eval --model avcap --model_args model=tiny
task      python -m avcap.lmms WORLD FOLDER writes it: lmms-eval --include_path FOLDER --tasks avcap_world
"""
