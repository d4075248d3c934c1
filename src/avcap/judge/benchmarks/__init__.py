"""Benchmarks of captions: whose data, by whose rules. How a judge is asked stands in protocols/."""
