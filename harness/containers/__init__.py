"""Where things run: this machine, or a container on it."""
