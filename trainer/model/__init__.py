"""The model: its layers, its head loss, its sizes and what it costs."""
