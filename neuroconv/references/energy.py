"""Publications on what arithmetic and memory cost in energy."""

from neuroconv.references.reference import Reference

ENERGY: tuple[Reference, ...] = (
    Reference(
        key="horowitz2014",
        authors=("Horowitz",),
        year=2014,
        title="Computing's energy problem (and what we can do about it)",
        venue="IEEE International Solid-State Circuits Conference, 10-14",
        doi="10.1109/ISSCC.2014.6757323",
    ),
    Reference(
        key="jouppi2021",
        authors=(
            "Jouppi", "Yoon", "Ashcraft", "Gottscho", "Jablin", "Kurian", "Laudon", "Li", "Ma",
            "Ma", "Norrie", "Patil", "Prasad", "Young", "Zhou", "Patterson",
        ),
        year=2021,
        title="Ten Lessons From Three Generations Shaped Google's TPUv4i: Industrial Product",
        venue="48th International Symposium on Computer Architecture (ISCA), 1-14",
        doi="10.1109/ISCA52012.2021.00010",
    ),
)  # fmt: skip
