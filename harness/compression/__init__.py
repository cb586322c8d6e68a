"""Pruning criteria and distillation methods, one file each."""
