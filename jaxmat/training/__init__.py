"""Schedules, optimizers, losses, the training step, the loop around it, and checkpoints."""
