"""Benchmarks of training, painting, the loss networks and the reference, measured side by side."""
