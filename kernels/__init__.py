"""The kernels, apart from everything else: the specification, and what devices implement of it.

Installed as ``fastnn.kernels``. Imports nothing from the rest of ``fastnn``.
"""
