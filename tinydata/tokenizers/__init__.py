"""Tokenizer families behind one interface; `open.open_tokenizer` returns any of them."""
