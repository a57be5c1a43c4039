"""Which cells of the input, and which encoder states, move the predictions."""
