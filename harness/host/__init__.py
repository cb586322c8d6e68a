"""What can be known about the machine: its CPUs, control groups and load, and the container around this process."""
