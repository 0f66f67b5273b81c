"""The graphs in other precisions than they were traced in: half floats and 8-bit integers."""
