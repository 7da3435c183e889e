"""An entry of a comparison whose numbers are easy to recognise."""

from neuroconv.report import Entry

ENTRY = Entry(
    label="CNN", name="some_model", parameters=1234, mac_wired=420,
    mac_executed=430, axons=40, wires=80, input_wires=60, neurons=56, mac_per_neuron=7.5,
    mflop_per_image=1.0, counters=("closed_form", "exact", "fvcore"), counter_remarks=(),
    dendrites=None, accuracies={3: 0.94, 5: 0.96}, mean=0.95, half_width=0.02,
    difference=0.01, difference_half_width=0.03, seconds_per_epoch=0.25, histories=[],
)  # fmt: skip
