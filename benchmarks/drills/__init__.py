"""Faults on purpose: what becomes of a gallery when disks fill, cameras die and processes are killed."""
