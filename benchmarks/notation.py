"""How figures are written wherever benchmarks show them."""

DASH = "–"
"""Where there is no figure."""


def speed(fps: float) -> str:
    """Frames a second to three digits or so."""
    return f"{fps:.2f}" if fps < 10 else f"{fps:.1f}"
