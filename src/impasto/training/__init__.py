"""Training: Lightning modules, optimizer, schedule, callbacks and checkpoints."""
