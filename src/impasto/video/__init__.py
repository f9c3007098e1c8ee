"""Clips in and out, and the motion between their frames."""
