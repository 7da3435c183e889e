"""A configuration that trains in seconds."""

SMALL = """
[model]
name = "granule_convnet"
widths = [2, 3]
strides = [2, 1]

[data]
name = "digits"
train_limit = 60

[train]
epochs = 2
batch_size = 20
learning_rate = 1e-2
device = "cpu"

[[opponents]]
name = "plain_cnn"
match = "parameters"
encoding = "none"
"""
