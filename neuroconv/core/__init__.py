"""What every part stands on: checks of arguments, cost rows, memory layout."""
