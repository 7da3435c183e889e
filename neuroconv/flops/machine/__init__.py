"""What is measured on a device rather than counted: time, peaks, memory, the share of activity."""
