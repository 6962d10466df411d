"""Proof that a device computes what the texts say: for its author's tests, and for ours.

``BackendConformance``
    A pytest class; subclassed with a device's name it is that device's whole test file.
``StrictBackend``
    A device that forgives nothing, to find code that only works where host and device are one.
``gradient_error``
    Back-propagation against central differences.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastnn.testing.gradient_check import gradient_error
from fastnn.testing.strict import StrictBackend

if TYPE_CHECKING:
    from fastnn.testing.conformance import BackendConformance

__all__ = ["BackendConformance", "StrictBackend", "gradient_error"]


def __getattr__(name: str) -> Any:
    # Only the suite needs pytest, which must rewrite its assertions before it is imported.
    if name != "BackendConformance":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import pytest

    pytest.register_assert_rewrite("fastnn.testing.conformance", "fastnn.testing.comparing")
    from fastnn.testing.conformance import BackendConformance

    return BackendConformance
