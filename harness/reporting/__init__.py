"""Reporting: records -> tables, charts, README. It reads what is stored, and the plan for which rows belong."""
