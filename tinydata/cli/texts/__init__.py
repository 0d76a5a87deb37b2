"""What the commands print about their plans and results, as text."""
