"""Verdicts and answers become figures with intervals."""
