"""Evaluation: which stylized pictures are better, by how much, and what they cost."""
