"""Networks, one file each, and how the weights of any of them are stored."""
