"""From trained weights to a model file that an engine can open."""
