from fastnn.testing import BackendConformance, StrictBackend


class TestStrict(BackendConformance):
    device = StrictBackend
