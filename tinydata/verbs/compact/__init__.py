"""counts + big tokenizer -> vocabulary."""
