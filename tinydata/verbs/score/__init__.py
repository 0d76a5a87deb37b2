"""shards + frozen model -> scores."""
