"""Checks: are the records whole, do they fit one another, and can their figures be believed? Reads and never runs.

Reading order: catalogue (the list of checks), evidence (what they look at), limits (where they draw the line), then the
checks themselves: provenance, measurement, agreement, answers, plausibility, and files_on_disk, which only `verify`
runs. comparison compares two results folders.
"""
