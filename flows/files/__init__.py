"""Files on disk: atomic writes, locks, downloads, progress."""
