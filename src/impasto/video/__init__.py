"""Clips in and out, and their motion."""
