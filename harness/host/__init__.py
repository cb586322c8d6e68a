"""What can be known about the machine: its CPUs, control groups, load, and the container around us."""
