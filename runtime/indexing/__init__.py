"""Videos, pictures and cameras → a gallery: read frames, find people, follow them, commit."""
