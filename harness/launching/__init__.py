"""Where things run: this machine."""
