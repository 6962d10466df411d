import numpy as xp  # or another library with NumPy's interface

from fastnn.backends.base import Backend
from fastnn.kernels import reference


class PocketBackend(Backend):
    name = "pocket"

    def asarray(self, host):
        return xp.array(host, order="C")

    def to_numpy(self, array):
        return xp.array(array)

    def empty(self, shape, dtype):
        return xp.empty(shape, dtype)

    def views(self, flat, shapes):
        pieces, start = [], 0
        for shape in shapes:
            stop = start + int(xp.prod(shape))
            pieces.append(flat[start:stop].reshape(shape))
            start = stop
        return pieces

    def gather(self, rows, order, start, stop, scale, out):
        out[...] = rows[order[start:stop]] * self.dtype.type(scale)

    def matmul(self, a, b, out, *, transpose_a=False, transpose_b=False, alpha=1.0, beta=0.0):
        product = alpha * (a.T if transpose_a else a) @ (b.T if transpose_b else b)
        out[...] = product + beta * out if beta else product

    def sum_rows(self, delta, out, *, alpha=1.0, beta=0.0):
        total = alpha * delta.sum(axis=0)
        out[...] = total + beta * out if beta else total

    def activate(self, b, activation, out):
        out[...] = reference.SIGMA[activation](out + b)

    def hadamard(self, a, activation, out):
        out *= reference.SIGMA_PRIME[activation](a)

    def output_delta(self, a, y, activation, cost, out):
        out[...] = reference.output_delta(a, y, activation, cost)
