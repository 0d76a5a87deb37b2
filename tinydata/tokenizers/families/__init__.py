"""One file per tokenizer family."""
