"""Foundations of every part: checks of arguments, cost rows, memory layout."""
