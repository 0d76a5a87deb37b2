"""Directories as the Hugging Face libraries have them, read and written; `trainer.export` is the program."""
