"""What a directory holds, and what it was made of."""
