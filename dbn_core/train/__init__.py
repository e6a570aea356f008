"""Training: one loop, its recipe, checkpoints."""
