"""Reports and comparisons of runs: HTML pages and data."""
