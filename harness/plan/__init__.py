"""From matrix.toml to a plan: settings, the graph of keyed stages, the cells. Nothing here imports torch."""
