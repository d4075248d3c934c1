"""Ways of asking a language model about captions: one file for each published or own protocol."""
