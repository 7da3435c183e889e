"""Fast ways to run the neuron, below the layers that define it."""
