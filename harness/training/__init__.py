"""Runs in the GPU image: data, model, pruning, distillation, the training loop, export."""
