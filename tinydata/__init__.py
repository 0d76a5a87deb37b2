"""tinydata: compact tokenizers, and the data and models that go with them, for tiny language models."""

__version__ = "0.1.0"
