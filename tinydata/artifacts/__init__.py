"""What a directory contains, and which inputs it was produced from."""
