from fastnn.testing import BackendConformance


class TestNumba(BackendConformance):
    device = "numba"
