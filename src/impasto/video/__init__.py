"""Clips in and out (`reading`, `writing`), and their motion (`motion`)."""
