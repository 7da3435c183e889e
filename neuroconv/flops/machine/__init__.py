"""Measurements on a device, beside the counts: time, peaks, memory, the share of activity."""
