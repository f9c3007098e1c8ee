"""Which is better, faster, smaller, and by how much."""
