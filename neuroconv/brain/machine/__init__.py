"""What a machine, measured, runs of a brain in real time."""
