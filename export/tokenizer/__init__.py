"""The tokenizer of a checkpoint, read as transformers reads it and written for the runtime."""
