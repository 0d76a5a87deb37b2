"""Tokenizer families behind one interface; open_tokenizer in base.py is the door."""
