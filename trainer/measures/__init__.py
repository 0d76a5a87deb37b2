"""What the programs evaluate, bench, sweep and curve measure and draw."""
