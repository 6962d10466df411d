from fastnn.testing import BackendConformance


class TestPocket(BackendConformance):
    device = "pocket"
