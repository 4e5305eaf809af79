"""The report: what a run learned, as a page to read and as data to go on with."""
