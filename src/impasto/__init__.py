"""impasto: fast neural style transfer."""
