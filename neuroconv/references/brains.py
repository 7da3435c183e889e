"""Publications on whole brains: their numbers, and estimates of what they compute."""

from neuroconv.references.reference import Reference

BRAINS: tuple[Reference, ...] = (
    Reference(
        "aiimpacts2015rates",
        ("AI Impacts",),
        2015,
        "Neuron firing rates in humans",
        "aiimpacts.org, 14 April 2015, last updated 10 December 2020",
        web="https://aiimpacts.org/rate-of-neuron-firing",
    ),
    Reference(
        "aiimpacts2015teps",
        ("AI Impacts",),
        2015,
        "Brain performance in TEPS",
        "aiimpacts.org, 2015",
        web="https://aiimpacts.org/brain-performance-in-teps/",
    ),
    Reference(
        "attwell2001",
        ("Attwell", "Laughlin"),
        2001,
        "An energy budget for signaling in the grey matter of the brain",
        "J Cereb Blood Flow Metab 21(10):1133-1145",
        doi="10.1097/00004647-200110000-00001",
    ),
    Reference(
        "buzsaki2014",
        ("Buzsáki", "Mizuseki"),
        2014,
        "The log-dynamic brain: how skewed distributions affect network operations",
        "Nat Rev Neurosci 15(4):264-278",
        doi="10.1038/nrn3687",
    ),
    Reference(
        "byrnes2021",
        ("Byrnes",),
        2021,
        'Comments on "The Singularity is Nowhere Near"',
        "AI Alignment Forum, 2021",
        web="https://www.alignmentforum.org/posts/P7P2iG4zvBNANvQFK/"
        "comments-on-the-singularity-is-nowhere-near",
    ),
    Reference(
        "carlsmith2020",
        ("Carlsmith",),
        2020,
        "How much computational power does it take to match the human brain?",
        "Open Philanthropy, 11 September 2020",
        web="https://coefficientgiving.org/research/"
        "how-much-computational-power-does-it-take-to-match-the-human-brain",
    ),
    Reference(
        "drexler2019",
        ("Drexler",),
        2019,
        "Reframing superintelligence: comprehensive AI services as general intelligence",
        "Future of Humanity Institute, technical report 2019-1",
        web="https://www.fhi.ox.ac.uk/wp-content/uploads/"
        "Reframing_Superintelligence_FHI-TR-2019-1.1-1.pdf",
    ),
    Reference(
        "kurzweil2005",
        ("Kurzweil",),
        2005,
        "The Singularity is near: when humans transcend biology",
        "Viking",
        web="http://www.singularity.com/",
    ),
    Reference(
        "landauer1961",
        ("Landauer",),
        1961,
        "Irreversibility and heat generation in the computing process",
        "IBM J Res Dev 5(3):183-191",
        doi="10.1147/rd.53.0183",
    ),
    Reference(
        "levy2021",
        ("Levy", "Calvert"),
        2021,
        "Communication consumes 35 times more energy than computation in the human cortex, but "
        "both costs are needed to predict synapse number",
        "Proc Natl Acad Sci USA 118(18):e2008173118",
        doi="10.1073/pnas.2008173118",
    ),
    Reference(
        "merkle1989",
        ("Merkle",),
        1989,
        "Energy limits to the computational power of the human brain",
        "Foresight Update 6",
        web="https://ralphmerkle.com/brainLimits.html",
    ),
    Reference(
        "moravec1998",
        ("Moravec",),
        1998,
        "When will computer hardware match the human brain?",
        "J Evol Technol 1",
        web="https://www.jetpress.org/volume1/moravec.htm",
    ),
    Reference(
        "sandberg2008",
        ("Sandberg", "Bostrom"),
        2008,
        "Whole brain emulation: a roadmap",
        "Future of Humanity Institute, technical report 2008-3",
        web="https://ora.ox.ac.uk/objects/uuid:a6880196-34c7-47a0-80f1-74d32ab98788",
    ),
    Reference(
        "shoham2006",
        ("Shoham", "O'Connor", "Segev"),
        2006,
        'How silent is the brain: is there a "dark matter" problem in neuroscience?',
        "J Comp Physiol A 192(8):777-784",
        doi="10.1007/s00359-006-0117-6",
    ),
)
