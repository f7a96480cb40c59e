"""What the engine writes: checkpoints, and batches of compiled nodes."""
