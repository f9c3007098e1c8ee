"""Photos for training: where they are read from (`sources`) and how they reach the trainer (`modules`)."""
