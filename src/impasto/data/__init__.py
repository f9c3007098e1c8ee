"""Photos for training: where they are read from (`sources`, `streams`) and how they reach the trainer (`modules`)."""
