"""Containers: the two images, and running a command in one."""
