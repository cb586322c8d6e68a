"""As much of the matrix as a time allows, without anybody looking on: train, export, measure, report.

Reading order: schedule (what comes next and how much time it gets, decided without running anything), stage (one
command, stopped in time), run (all of it, with its log).
"""
