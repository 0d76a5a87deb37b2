"""Corpus formats, one module each; `plan` and `read` in corpus.py are the entry points for all of them."""
