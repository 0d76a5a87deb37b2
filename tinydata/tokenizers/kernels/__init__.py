"""The compiled kernels of tokenizers."""
