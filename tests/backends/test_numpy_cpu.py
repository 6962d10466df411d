from fastnn.testing import BackendConformance


class TestNumpy(BackendConformance):
    device = "numpy"
