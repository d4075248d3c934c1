"""Models are measured: captions, questions, the use of the sound."""
