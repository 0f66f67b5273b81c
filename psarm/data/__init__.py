"""Data sets on disk: readers, the synthetic generator and checks."""
