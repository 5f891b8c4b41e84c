"""Sites and plates of probabilistic programs, of whichever library: what a log-weight by row can be made of."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

PARTICLES = "particles of the bound"  # a plate of our own, over samples


class Site(NamedTuple):
    """A random site of a trace.

    Attributes:
        name: its name.
        plates: name -> (dim, size of what is drawn of it), of the plates that it is in.
        observed: whether it is data.
        enumerated: whether its values are summed over, not drawn.
        auxiliary: whether a guide needs it to draw another.
    """

    name: str
    plates: Mapping[str, tuple[int, int]]
    observed: bool
    enumerated: bool = False
    auxiliary: bool = False


def plates_of(site: Mapping[str, Any]) -> dict[str, tuple[int, int]]:
    """The plates that a sample site of a trace, Pyro's or NumPyro's, is in: name -> (dim, size)."""
    return {frame.name: (frame.dim, frame.size) for frame in site["cond_indep_stack"] if frame.dim is not None}


def sites_of(nodes: Sequence[Mapping[str, Any]]) -> list[Site]:
    """What is needed of sample sites of a trace, Pyro's or NumPyro's."""
    return [
        Site(
            node["name"],
            plates_of(node),
            bool(node["is_observed"]),
            bool(node["infer"].get("enumerate")),
            bool(node["infer"].get("is_auxiliary")),
        )
        for node in nodes
    ]


def require_sites(model: Sequence[Site], guide: Sequence[Site]) -> None:
    """Refuse a model and a guide of whose traces no log-weight log p(x, z) - log q(z|x) can be made.

    Args:
        model: its sites, latents drawn by the guide.
        guide: its sites.

    Raises:
        ValueError: if so.
    """
    seen = [site.name for site in guide if site.observed]
    if seen:
        raise ValueError(
            f"The guide must observe nothing, and observes {seen[0]!r}: make must return (model, guide, ELBO)."
        )
    if not any(site.observed for site in model):
        raise ValueError("The model observes nothing: give x to a site of it by obs=.")
    summed = [site.name for site in (*model, *guide) if site.enumerated]
    if summed:
        raise ValueError(
            f"The values of {summed[0]!r} are enumerated, and a bound made of drawn ones cannot stand beside that; let "
            "the guide draw it."
        )
    latent, drawn = ({site.name for site in sites if not site.observed} for sites in (model, guide))
    needed = {site.name for site in guide if not site.auxiliary}
    for missing, where in ((latent - drawn, "guide"), (needed - latent, "model")):
        if missing:
            raise ValueError(f"The latent {min(missing)!r} is not in the {where}; both must draw the same latents.")


def the_plate(sites: Sequence[Site], rows: int) -> str:
    """The plate over the rows of x, in which every site must be.

    Args:
        sites: of model and guide.
        rows: of x.

    Returns:
        Its name.

    Raises:
        ValueError: if there is none, or it is not known which of several it is.
    """
    first, *others = sites
    shared = {name: size for name, (_, size) in first.plates.items() if all(name in one.plates for one in others)}
    found = [name for name, size in shared.items() if size == rows] or list(shared)
    if len(found) == 1:
        return found[0]
    if found:
        raise ValueError(
            f"Every site is in the plates {' and '.join(map(repr, found))}: it is not known which of them is over the "
            f"{rows} rows of x; use .to_event() for the other."
        )
    counts = {name: sum(name in one.plates for one in sites) for one in sites for name in one.plates}
    most = max(counts, key=counts.__getitem__, default="")
    outside = next(one.name for one in sites if most not in one.plates)
    raise ValueError(
        f"The site {outside!r} must be in one plate over the {rows} rows of x, as every other, with .to_event() for "
        "what belongs to one row; a latent that all rows share has no bound by row."
    )


def require_whole(taken: int, rows: int, alpha: float) -> bool:
    """Refuse a bound of several log-weights a row where every sample would take rows of its own.

    Args:
        taken: rows that the plate takes.
        rows: of x.
        alpha: of the bound.

    Returns:
        Whether it takes all of them.

    Raises:
        ValueError: if so.
    """
    if taken < rows and alpha != 1:
        raise ValueError(
            f"The plate takes {taken} of the {rows} rows of x anew for every sample, of which only the ELBO is a mean; "
            "subsample before, and give the plate its full size."
        )
    return taken >= rows


def rows_of(name: str, log_prob: Any, plates: Mapping[str, tuple[int, int]], plate: str) -> Any:
    """The log-probability of a site by row, summed over every other plate but that over samples.

    Args:
        name: of the site.
        log_prob: an array of torch or of JAX.
        plates: that the site is in.
        plate: over the rows.

    Returns:
        (rows,) or (K, rows).

    Raises:
        ValueError: if its shape has no such dimension.
    """
    kept = {plates[one][0] for one in (plate, PARTICLES) if one in plates}
    dim, size = plates[plate]
    if log_prob.ndim < -dim or log_prob.shape[dim] != size:
        raise ValueError(f"The site {name!r} must have {size} rows at dimension {dim}, got {tuple(log_prob.shape)}.")
    summed = tuple(axis for axis in range(-log_prob.ndim, 0) if axis not in kept)
    return log_prob.sum(summed) if summed else log_prob
