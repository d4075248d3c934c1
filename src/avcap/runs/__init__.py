"""What commands run: a stage, from the checkpoint before it to the checkpoint after it."""
