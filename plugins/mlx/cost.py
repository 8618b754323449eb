"""What a variant will cost, from headers alone. Stdlib only."""
