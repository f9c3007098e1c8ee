"""Training: the Lightning module, its optimizer and schedule, checkpoints, and the compact loss network."""
