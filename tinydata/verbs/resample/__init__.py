"""scores -> the next round."""
