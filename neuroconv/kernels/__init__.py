"""Fast implementations of the neuron's stages, below the layers that define them."""
