"""Checking: are the records whole, do they fit one another, and can their figures be believed? Reads, never runs.

Reading order: checks (the list), evidence (what they look at), limits (where lines are drawn), then the checks
themselves: chain, measurement, agreement, plausibility, and files, which only verify looks at. compare sets two results
folders against each other.
"""
