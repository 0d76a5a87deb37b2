"""A lean trainer for language models of 0.1-2B parameters: shards -> checkpoints -> Hugging Face directories.

Programs: `python -m trainer.run`, `.inherit`, `.export`, `.generate`, `.evaluate`, `.sweep`, `.bench`.
"""
