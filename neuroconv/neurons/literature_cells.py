"""Presets of the variant `literature`: what anatomy and physiology have measured.

A species other than man's is named in the note. The number of Golgi cells in a human brain is
left out: one to three Purkinje cells (cat; Palkovits et al. 1971) and one to 430 granule cells
(rat; D'Angelo et al. 2013, p. 9) would make it 10 or 235 million.

All filters keep the essay's five time steps and its branches, so that the variants cost alike and
share a window; `Physiology.cut_off` is the share of a slow membrane's response that this loses.
"""

from neuroconv.neurons.cell_numbers import Physiology
from neuroconv.references import Source


def _kept(what: str) -> Source:
    return Source("chosen", f"{what} kept from [dettmers2015], so that variants are comparable")


_SOMA = _kept("five taps")
_WAIT = _kept("the Poisson(0.5) waiting periods")
_GRANULE_FILTER = _kept("the granule cell's 3 branches and 5 steps")
_PURKINJE_FILTER = _kept("the Purkinje cell's 10 branches and 5 steps")
_FEWEST_SITES = Source("derived", "the fewest sites on the `dendrites` that hold the `synapses`")

GRANULE_LITERATURE = Physiology(
    cell="granule",
    variant="literature",
    cells_in_brain=101_000_000_000,
    synapses=41,
    dendrites=4,
    sheet_shape=(11, 4),
    filter_shape=(3, 4, 5),
    soma_time_steps=5,
    claw=True,
    outputs=45,
    mean_wait=0.5,
    excites=True,
    summation="linear",
    sources={
        "cells_in_brain": Source(
            "andersen1992",
            "abstract",
            "stereology; the isotropic fractionator finds 86.1e9 neurons in the whole brain "
            "([azevedo2009], abstract)",
        ),
        "synapses": Source(
            "derived",
            "10.2 postsynaptic digits a dendrite ([palkovits1972], p. 28), times 4 `dendrites`: "
            "40.8",
            "cat",
        ),
        "dendrites": Source(
            "billings2014",
            "abstract",
            "approximately four; mean 4.17 in cat ([palkovits1972], p. 24)",
        ),
        "sheet_shape": _FEWEST_SITES,
        "filter_shape": _GRANULE_FILTER,
        "soma_time_steps": _SOMA,
        "claw": Source(
            "dangelo2013",
            "p. 9",
            "a glomerulus holds one mossy fibre's terminal, and one dendrite of a granule cell",
        ),
        "outputs": Source(
            "palkovits1971",
            "summary",
            "Purkinje cells that a parallel fibre contacts, cat. All its boutons, on whatever "
            "cell, are about 1,100 ([brand1976], abstract); from 175,000 synapses on each of "
            "30.5e6 Purkinje cells follow 53",
        ),
        "mean_wait": _WAIT,
        "excites": Source("isope2002", "introduction", "parallel fibres' excitatory synapses"),
        "summation": Source(
            "chosen",
            "the cell is electrically compact ([dangelo2001], abstract) and mossy fibres' currents "
            "summate ([chadderton2004], abstract); no measurement of the law found",
        ),
    },
)

PURKINJE_LITERATURE = Physiology(
    cell="purkinje",
    variant="literature",
    cells_in_brain=30_500_000,
    synapses=175_000,
    dendrites=400,
    sheet_shape=(438, 400),
    filter_shape=(10, 400, 5),
    soma_time_steps=5,
    claw=False,
    outputs=474,
    mean_wait=0.5,
    excites=False,
    summation="linear",
    length_constant_um=1630.0,
    time_constant_ms=82.0,
    site_um=0.5,
    rate_hz=50.0,
    sources={
        "cells_in_brain": Source(
            "andersen1992", "abstract", "another count finds 15.4e6: [nairn1989], abstract"
        ),
        "synapses": Source(
            "napper1988",
            "abstract",
            "rat; up to 85 % without a detectable response ([isope2002], abstract); a human cell "
            "has about 7.5 times a mouse's spines ([masoli2024], abstract)",
        ),
        "dendrites": Source(
            "rapp1994", "p. 107, table 2", "dendritic terminals, over 400; guinea pig"
        ),
        "sheet_shape": _FEWEST_SITES,
        "filter_shape": _PURKINJE_FILTER,
        "soma_time_steps": _SOMA,
        "claw": Source("isope2002", "introduction", "one or two contacts of a parallel fibre; rat"),
        "outputs": Source(
            "palkovits1977", "summary", "boutons of an axon, on some 35 nuclear cells; cat"
        ),
        "mean_wait": _WAIT,
        "excites": Source("person2012", "abstract", "GABAergic"),
        "summation": Source(
            "walter2006", "abstract", "spikes against the strength of parallel fibre input"
        ),
        "length_constant_um": Source(
            "derived",
            "sqrt(R_m d / 4 R_i) with R_m = 122 kOhm cm2 and R_i = 115 Ohm cm ([roth2001], "
            "abstract) for a dendrite d = 1 um thick, which is chosen",
            "rat, Ih blocked, spines not counted",
        ),
        "time_constant_ms": Source(
            "rapp1994",
            "abstract",
            "guinea pig, in caesium; R_m C_m = 122 kOhm cm2 x 0.77 uF/cm2 gives 94 ms ([roth2001])",
        ),
        "site_um": Source(
            "derived",
            "1 / (2 spines per um): [masoli2024], abstract",
            "man and mouse; ten per um assumed in [rapp1994], abstract",
        ),
        "rate_hz": Source("person2012", "abstract", "intrinsic simple spikes; mouse"),
    },
)

DEEP_NUCLEAR_LITERATURE = Physiology(
    cell="deep_nuclear",
    variant="literature",
    cells_in_brain=5_010_000,
    synapses=20_000,
    dendrites=10,
    sheet_shape=(2000, 10),
    filter_shape=(10, 10, 5),
    soma_time_steps=5,
    claw=False,
    mean_wait=0.5,
    excites=True,
    summation="linear",
    time_constant_ms=33.0,
    rate_hz=90.0,
    sources={
        "cells_in_brain": Source(
            "andersen1992", "abstract", "neurons of the dentate nucleus alone"
        ),
        "synapses": Source(
            "palkovits1977",
            "summary",
            "boutons on a cell, 11,600 of them of some 860 Purkinje cells; cat. About 40 Purkinje "
            "cells converge in the mouse ([person2012], abstract)",
        ),
        "dendrites": Source("chosen", "ten for 20,000 `synapses`: no count of dendrites found"),
        "sheet_shape": _FEWEST_SITES,
        "filter_shape": _PURKINJE_FILTER,
        "soma_time_steps": _SOMA,
        "claw": Source(
            "palkovits1977", "summary", "dendritic synapses of a Purkinje axon lie spread out; cat"
        ),
        "mean_wait": _WAIT,
        "excites": Source(
            "uusisaari2011",
            "abstract",
            "the glutamatergic cells, of glutamatergic, GABAergic and glycinergic ones; mouse",
        ),
        "summation": Source(
            "gauck2000", "abstract", "rate linear in the rate of inhibitory inputs, in vitro"
        ),
        "time_constant_ms": Source(
            "geminiani2019",
            "neuron parameters, as the deep cerebellar nuclei page of dbbs-lab's cerebellar-models "
            "documentation lists them",
            "33 +- 18 ms, excitatory projection neurons",
        ),
        "rate_hz": Source("person2012", "abstract", "intrinsic; mouse"),
    },
)

GOLGI_LITERATURE = Physiology(
    cell="golgi",
    variant="literature",
    synapses=2040,
    dendrites=10,
    sheet_shape=(204, 10),
    filter_shape=(10, 10, 5),
    soma_time_steps=5,
    claw=False,
    outputs=2000,
    mean_wait=0.5,
    excites=False,
    summation="sublinear",
    rate_hz=8.4,
    sources={
        "synapses": Source(
            "dangelo2013",
            "p. 9",
            "about 40 mossy fibres, 400 ascending axons, 400 local and 1,200 distant parallel "
            "fibres; rat",
        ),
        "dendrites": Source("chosen", "ten for 2,040 `synapses`: no count of dendrites found"),
        "sheet_shape": _FEWEST_SITES,
        "filter_shape": _PURKINJE_FILTER,
        "soma_time_steps": _SOMA,
        "claw": Source("dangelo2013", "p. 9", "its synapses are of as many axons; rat"),
        "outputs": Source("dangelo2013", "p. 9", "granule cells, in as many as 40 glomeruli; rat"),
        "mean_wait": _WAIT,
        "excites": Source("vos1999", "abstract", "the only cells that inhibit granule cells"),
        "summation": Source("vervaeke2012", "title", "gap junctions make up for it"),
        "rate_hz": Source("vos1999", "abstract", "at rest, anaesthetised rat"),
    },
)

PYRAMIDAL_LITERATURE = Physiology(
    cell="pyramidal",
    variant="literature",
    cells_in_brain=12_700_000_000,
    synapses=22_500,
    dendrites=7,
    sheet_shape=(3215, 7),
    filter_shape=(10, 7, 5),
    soma_time_steps=5,
    claw=False,
    mean_wait=0.5,
    excites=True,
    summation="supralinear",
    length_constant_um=438.0,
    time_constant_ms=12.03,
    rate_hz=0.16,
    sources={
        "cells_in_brain": Source(
            "derived",
            "19 % of 86.1e9 neurons lie in the cortex ([azevedo2009], abstract), 70 to 85 % of "
            "them pyramidal ([rasiafilho2021], abstract): with 77.5 %, 12.7e9",
        ),
        "synapses": Source(
            "derived",
            "the middle of 15,000 to 30,000: [eyal2016], introduction",
            "layers 2 and 3",
        ),
        "dendrites": Source(
            "derived",
            "5.55 basal trees ([deitcher2017], abstract) and an apical one: 6.55",
            "layers 2 and 3; their terminal branches, several dozen, sum by themselves "
            "([poirazi2003], abstract)",
        ),
        "sheet_shape": _FEWEST_SITES,
        "filter_shape": _PURKINJE_FILTER,
        "soma_time_steps": _SOMA,
        "claw": _kept("separate axons"),
        "mean_wait": _WAIT,
        "excites": Source("luebke2017", "introduction"),
        "summation": Source(
            "polsky2004",
            "abstract",
            "neighbours on a branch sum sigmoidally, branches linearly; rat. Sigmoidal subunits in "
            "[poirazi2003], abstract",
        ),
        "length_constant_um": Source(
            "derived",
            "sqrt(R_m d / 4 R_i) with R_m = 38.907 kOhm cm2 / 1.9 for the spines and R_i = 203.23 "
            "Ohm cm ([eyal2016code], PassiveModels/model_0603_cell08.hoc) and d = 0.76 um "
            "([deitcher2017], abstract)",
            "layers 2 and 3",
        ),
        "time_constant_ms": Source("deitcher2017", "abstract", "layers 2 and 3"),
        "rate_hz": Source(
            "lennie2003",
            "estimate of the mean rate that the cortex's energy affords",
            "all cortical neurons; fewer than 1 % substantially active at once, abstract",
        ),
    },
)
