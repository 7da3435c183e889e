"""Old names and their new ones: keywords of version 0.4.0, for errors, and values that still load.

`zoo.legacy` translates tables of version 0.4.0.
"""

from collections.abc import Mapping

SPIKE: Mapping[str, str] = {
    "pull": "strength",
    "softness": "temperature",
    "reach": "window",
    "learn_pull": "learn_strength",
}
IMAGE_LAYER: Mapping[str, str] = {
    "law": "summation",
    "soma_time_steps": 'soma={"time_steps": ...}',
    "mean_wait": 'output={"mean_wait": ...}',
    "dropout_mode": 'output={"mode": ...}',
}
POPULATION: Mapping[str, str] = {
    **IMAGE_LAYER,
    "sheet_shape": 'tree={"sheet": (sites, dendrites)}',
    "filter_shape": 'tree={"filter": (branches, dendrites, time_steps)}',
    "synapses": 'tree={"synapses": ...}',
    "mode": 'tree={"mode": ...}',
    "claw": "wiring=Random(claw=...)",
    "image_shape": "wiring=ReceptiveField(image_shape)",
    "patch": "wiring=ReceptiveField(image_shape, patch)",
    "crossed": "wiring=ParallelFibres(neurons_per_fibre=...)",
    "seed": "wiring=Random(seed=...), and synapse=Synapse(seed=...) for Dale's law",
    "excitatory": 'synapse={"excitatory": ...}',
    "vesicles": 'synapse={"factorized": ...}',
    "transmitters": 'synapse={"transmitters": ...}',
    "cable": "taps=Taps(cable=...)",
    "hold_cable": "taps=Taps(cable=..., trainable=False)",
    "unit_taps": "taps=Taps(equalized_lr=...)",
    "backend": "taps=Taps(backend=...)",
    "linear_dendrites": 'rate={"linear": ...}',
    "reduction": 'rate={"reduction": ...}',
    "soma_per_neuron": 'soma={"neurons": out_features}',
    "dropout_scope": 'unit_dropout={"mean_wait": ...}, for the scope "unit"',
}
LAWS: Mapping[str, str] = {"bistable": "sigmoidal"}  # values: it keeps no memory of its level
