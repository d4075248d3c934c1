"""A small universe of videos whose truth is known exactly: scene -> pictures and sound, caption, questions, oracle."""
