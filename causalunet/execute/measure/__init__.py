"""What is measured of runs and calls: outcomes, summaries, audits, times."""
