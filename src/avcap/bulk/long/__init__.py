"""Videos that are longer than a model was made for: windows with an overlap, their captions put together again."""
