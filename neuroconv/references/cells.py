"""Publications on cells: their numbers, their dendrites, their rates."""

from neuroconv.references.reference import Reference

CELLS = (
    Reference(
        "dettmers2015",
        ("Dettmers",),
        2015,
        "The Brain vs Deep Learning Part I: Computational Complexity - Or Why the Singularity Is "
        "Nowhere Near",
        "timdettmers.com, 27 July 2015",
        web="http://timdettmers.com/2015/07/27/brain-vs-deep-learning-singularity/",
    ),
    Reference(
        "andersen1992",
        ("Andersen", "Korbo", "Pakkenberg"),
        1992,
        "A quantitative study of the human cerebellum with unbiased stereological techniques",
        "J Comp Neurol 326(4):549-560",
        doi="10.1002/cne.903260405",
    ),
    Reference(
        "azevedo2009",
        (
            *("Azevedo", "Carvalho", "Grinberg", "Farfel", "Ferretti", "Leite", "Jacob Filho"),
            *("Lent", "Herculano-Houzel"),
        ),
        2009,
        "Equal numbers of neuronal and nonneuronal cells make the human brain an isometrically "
        "scaled-up primate brain",
        "J Comp Neurol 513(5):532-541",
        doi="10.1002/cne.21974",
    ),
    Reference(
        "billings2014",
        ("Billings", "Piasini", "Lőrincz", "Nusser", "Silver"),
        2014,
        "Network structure within the cerebellar input layer enables lossless sparse encoding",
        "Neuron 83(4):960-974",
        doi="10.1016/j.neuron.2014.07.020",
    ),
    Reference(
        "brand1976",
        ("Brand", "Dahl", "Mugnaini"),
        1976,
        "The length of parallel fibers in the cat cerebellar cortex. An experimental light and "
        "electron microscopic study",
        "Exp Brain Res 26(1):39-58",
        doi="10.1007/BF00235248",
    ),
    Reference(
        "chadderton2004",
        ("Chadderton", "Margrie", "Häusser"),
        2004,
        "Integration of quanta in cerebellar granule cells during sensory processing",
        "Nature 428:856-860",
        doi="10.1038/nature02442",
    ),
    Reference(
        "dangelo2001",
        (
            *("D'Angelo", "Nieus", "Maffei", "Armano", "Rossi", "Taglietti", "Fontana"),
            "Naldi",
        ),
        2001,
        "Theta-frequency bursting and resonance in cerebellar granule cells: experimental "
        "evidence and modeling of a slow K+-dependent mechanism",
        "J Neurosci 21(3):759-770",
        doi="10.1523/JNEUROSCI.21-03-00759.2001",
    ),
    Reference(
        "dangelo2013",
        ("D'Angelo", "Solinas", "Mapelli", "Gandolfi", "Mapelli", "Prestori"),
        2013,
        "The cerebellar Golgi cell and spatiotemporal organization of granular layer activity",
        "Front Neural Circuits 7:93",
        doi="10.3389/fncir.2013.00093",
    ),
    Reference(
        "deitcher2017",
        (
            *("Deitcher", "Eyal", "Kanari", "Verhoog", "Atenekeng Kahou", "Mansvelder"),
            *("de Kock", "Segev"),
        ),
        2017,
        "Comprehensive morpho-electrotonic analysis shows 2 distinct classes of L2 and L3 "
        "pyramidal neurons in human temporal cortex",
        "Cereb Cortex 27(11):5398-5414",
        doi="10.1093/cercor/bhx226",
    ),
    Reference(
        "eyal2016",
        (
            *("Eyal", "Verhoog", "Testa-Silva", "Deitcher", "Lodder", "Benavides-Piccione"),
            *("Morales", "DeFelipe", "de Kock", "Mansvelder", "Segev"),
        ),
        2016,
        "Unique membrane properties and enhanced signal processing in human neocortical neurons",
        "eLife 5:e16553",
        doi="10.7554/eLife.16553",
    ),
    Reference(
        "eyal2016code",
        ("Eyal",),
        2016,
        "Models of Eyal et al. 2016, ModelDB accession 195667",
        "ModelDB",
        web="https://github.com/ModelDBRepository/195667",
    ),
    Reference(
        "gauck2000",
        ("Gauck", "Jaeger"),
        2000,
        "The control of rate and timing of spikes in the deep cerebellar nuclei by inhibition",
        "J Neurosci 20(8):3006-3016",
        doi="10.1523/JNEUROSCI.20-08-03006.2000",
    ),
    Reference(
        "geminiani2019",
        ("Geminiani", "Casellato", "D'Angelo", "Pedrocchi"),
        2019,
        "Complex electroresponsive dynamics in olivocerebellar neurons represented with "
        "extended-generalized leaky integrate and fire models",
        "Front Comput Neurosci 13:35",
        doi="10.3389/fncom.2019.00035",
    ),
    Reference(
        "isope2002",
        ("Isope", "Barbour"),
        2002,
        "Properties of unitary granule cell-Purkinje cell synapses in adult rat cerebellar slices",
        "J Neurosci 22(22):9668-9678",
        doi="10.1523/JNEUROSCI.22-22-09668.2002",
    ),
    Reference(
        "lennie2003",
        ("Lennie",),
        2003,
        "The cost of cortical computation",
        "Curr Biol 13(6):493-497",
        doi="10.1016/S0960-9822(03)00135-0",
    ),
    Reference(
        "luebke2017",
        ("Luebke",),
        2017,
        "Pyramidal neurons are not generalizable building blocks of cortical networks",
        "Front Neuroanat 11:11",
        doi="10.3389/fnana.2017.00011",
    ),
    Reference(
        "masoli2024",
        (
            *("Masoli", "Sanchez-Ponce", "Vrieler", "Abu-Haya", "Lerner", "Shahar", "Nedelescu"),
            *("Rizza", "Benavides-Piccione", "DeFelipe", "Yarom", "Munoz", "D'Angelo"),
        ),
        2024,
        "Human Purkinje cells outperform mouse Purkinje cells in dendritic complexity and "
        "computational capacity",
        "Commun Biol 7",
        doi="10.1038/s42003-023-05689-y",
    ),
    Reference(
        "nairn1989",
        ("Nairn", "Bedi", "Mayhew", "Campbell"),
        1989,
        "On the number of Purkinje cells in the human cerebellum: unbiased estimates obtained by "
        "using the fractionator",
        "J Comp Neurol 290(4):527-532",
        doi="10.1002/cne.902900407",
    ),
    Reference(
        "napper1988",
        ("Napper", "Harvey"),
        1988,
        "Number of parallel fiber synapses on an individual Purkinje cell in the cerebellum of "
        "the rat",
        "J Comp Neurol 274(2):168-177",
        doi="10.1002/cne.902740204",
    ),
    Reference(
        "palkovits1971",
        ("Palkovits", "Magyar", "Szentágothai"),
        1971,
        "Quantitative histological analysis of the cerebellar cortex in the cat. III. Structural "
        "organization of the molecular layer",
        "Brain Res 34(1):1-18; its summary quoted at the address",
        web="https://github.com/rctn/pseudocerebellum/blob/"
        "7e614778db1c852ce8dc0fa34ac94df8744dcf96/docs/source/notes/PalkovitsM%2B2-1971c.rst",
    ),
    Reference(
        "palkovits1972",
        ("Palkovits", "Magyar", "Szentágothai"),
        1972,
        "Quantitative histological analysis of the cerebellar cortex in the cat. IV. Mossy "
        "fiber-Purkinje cell numerical transfer",
        "Brain Res 45(1):15-29; its pages 23 to 28 quoted at the address",
        web="https://github.com/rctn/pseudocerebellum/blob/"
        "a0b724661e7a87ac4436875f869c7a45c3dfafae/docs/source/data/glomeruli.rst",
    ),
    Reference(
        "palkovits1977",
        ("Palkovits", "Mezey", "Hámori", "Szentágothai"),
        1977,
        "Quantitative histological analysis of the cerebellar nuclei in the cat. I. Numerical "
        "data on cells and on synapses",
        "Exp Brain Res 28:189-209; its summary quoted at the address",
        web="https://github.com/rctn/pseudocerebellum/blob/"
        "c8a6c1d41afdce839bc40294228a6c018fc0364c/docs/source/notes/PalkovitsM%2B3-1977.rst",
    ),
    Reference(
        "person2012",
        ("Person", "Raman"),
        2012,
        "Purkinje neuron synchrony elicits time-locked spiking in the cerebellar nuclei",
        "Nature 481:502-505",
        doi="10.1038/nature10732",
    ),
    Reference(
        "poirazi2003",
        ("Poirazi", "Brannon", "Mel"),
        2003,
        "Pyramidal neuron as two-layer neural network",
        "Neuron 37(6):989-999",
        doi="10.1016/S0896-6273(03)00149-1",
    ),
    Reference(
        "polsky2004",
        ("Polsky", "Mel", "Schiller"),
        2004,
        "Computational subunits in thin dendrites of pyramidal cells",
        "Nat Neurosci 7(6):621-627",
        doi="10.1038/nn1253",
    ),
    Reference(
        "rapp1994",
        ("Rapp", "Segev", "Yarom"),
        1994,
        "Physiology, morphology and detailed passive models of guinea-pig cerebellar Purkinje "
        "cells",
        "J Physiol 474(1):101-118",
        doi="10.1113/jphysiol.1994.sp020006",
    ),
    Reference(
        "rasiafilho2021",
        (
            *("Rasia-Filho", "Knak Guerra", "Escobar Vásquez", "Dall'Oglio", "Reberger"),
            *("Jung", "Calcagnotto"),
        ),
        2021,
        "The subcortical-allocortical-neocortical continuum for the emergence and morphological "
        "heterogeneity of pyramidal neurons in the human brain",
        "Front Synaptic Neurosci 13:616607",
        doi="10.3389/fnsyn.2021.616607",
    ),
    Reference(
        "roth2001",
        ("Roth", "Häusser"),
        2001,
        "Compartmental models of rat cerebellar Purkinje cells based on simultaneous somatic and "
        "dendritic patch-clamp recordings",
        "J Physiol 535:445-472",
        doi="10.1111/j.1469-7793.2001.00445.x",
    ),
    Reference(
        "uusisaari2011",
        ("Uusisaari", "Knöpfel"),
        2011,
        "Functional classification of neurons in the mouse lateral cerebellar nuclei",
        "Cerebellum 10:637-646",
        doi="10.1007/s12311-010-0240-3",
    ),
    Reference(
        "vervaeke2012",
        ("Vervaeke", "Lőrincz", "Nusser", "Silver"),
        2012,
        "Gap junctions compensate for sublinear dendritic integration in an inhibitory network",
        "Science 335:1624-1628",
        doi="10.1126/science.1215101",
    ),
    Reference(
        "vos1999",
        ("Vos", "Volny-Luraghi", "De Schutter"),
        1999,
        "Cerebellar Golgi cells in the rat: receptive fields and timing of responses to facial "
        "stimulation",
        "Eur J Neurosci 11:2621-2634",
        doi="10.1046/j.1460-9568.1999.00678.x",
    ),
    Reference(
        "walter2006",
        ("Walter", "Khodakhah"),
        2006,
        "The linear computational algorithm of cerebellar Purkinje cells",
        "J Neurosci 26(50):12861-12872",
        doi="10.1523/JNEUROSCI.4507-05.2006",
    ),
)
