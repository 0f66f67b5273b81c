"""Training: one run on one device, its state on disk, exact resume, and the evaluation at its end."""
