"""The commands. Each parses its arguments, calls one function and prints the result."""
