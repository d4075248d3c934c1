"""What may stand on the command line of avcap caption besides media files: lists, tar shards, Hugging Face datasets."""
