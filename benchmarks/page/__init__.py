"""What benchmark reports in HTML are made of: one self-contained page, its tables, and its plots as SVG."""
