"""The growth of computers, and the years in which they reach the estimate."""
