"""The suites that come with the package.  A module of its own, so that they can be listed without what checks them."""

from __future__ import annotations

from pathlib import Path


def available() -> dict[str, Path]:
    """Built-in suites by name."""
    folder = Path(__file__).parent.parent / "suites"
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}
