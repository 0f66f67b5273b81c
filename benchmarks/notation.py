"""How figures are written wherever benchmarks show them."""

DASH = "–"
"""Where there is no figure."""


def speed(fps: float) -> str:
    """Frames a second to three digits or so."""
    return f"{fps:.2f}" if fps < 10 else f"{fps:.1f}"


def percent(fraction: float | None) -> str:
    """A fraction in percent, without the sign."""
    return DASH if fraction is None else f"{100 * fraction:.1f}"
