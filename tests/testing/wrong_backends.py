"""Devices that are wrong, each in one respect, and their conformance suites.

``fails`` names the tests that must notice. Run by test_conformance.py, not collected by itself.
"""

import warnings
from dataclasses import replace

import numpy as np

from fastnn.backends.numpy_cpu import NumpyBackend
from fastnn.backprop import BackpropStep, workspaces
from fastnn.inference import Portions
from fastnn.testing import BackendConformance

GRADIENT = "test_back_propagation_is_the_gradient"
PLAIN = "test_the_plain_step_descends_the_reference"
FUSED = "test_the_fused_step_descends_the_reference"
FEED = "test_fused_feed"
DROPOUT = "test_a_step_with_dropout_descends_the_reference"
LEARNS = "test_it_learns_as_numpy_does"
WEIGHTS = "test_a_step_with_weights_descends_the_reference"

# Kernels
# -------------------------------------------------------------------------------------------


class SignOfOutputDelta(NumpyBackend):
    fails = "test_output_delta", GRADIENT, PLAIN, LEARNS

    def output_delta(self, a, y, activation, cost, out):
        super().output_delta(a, y, activation, cost, out)
        np.negative(out, out=out)


class SignOfGradient(NumpyBackend):
    fails = "test_gradient", GRADIENT

    def gradient(self, delta, a_prev, scale, out_w, out_b):
        super().gradient(delta, a_prev, -scale, out_w, out_b)


class SignOfDescend(NumpyBackend):
    fails = "test_descend", PLAIN

    def descend(self, w, b, delta, a_prev, rate, shrink):
        super().descend(w, b, delta, a_prev, -rate, shrink)


class ForgetsShrink(NumpyBackend):
    fails = "test_descend", PLAIN

    def descend(self, w, b, delta, a_prev, rate, shrink):
        super().descend(w, b, delta, a_prev, rate, 1.0)


class ShrinksBiases(NumpyBackend):
    fails = "test_descend", PLAIN

    def descend(self, w, b, delta, a_prev, rate, shrink):
        b *= shrink
        super().descend(w, b, delta, a_prev, rate, shrink)


class ForgetsSigmaPrime(NumpyBackend):
    fails = "test_propagate_delta", GRADIENT

    def propagate_delta(self, delta, w, a, activation, out):
        self.matmul(delta, w, out)


class TheFirstWeightForAll(NumpyBackend):
    fails = "test_scale_rows", WEIGHTS

    def scale_rows(self, weights, out):
        out *= weights[0]


class WritesAnInput(NumpyBackend):
    """A right result, with the outputs of the network as scratch memory."""

    fails = ("test_output_delta",)

    def output_delta(self, a, y, activation, cost, out):
        super().output_delta(a, y, activation, cost, out)
        a -= y


class IgnoresRowTails(NumpyBackend):
    """Four rows at a time, and no code for the rest."""

    fails = "test_activate", "test_forward"

    def activate(self, b, activation, out):
        super().activate(b, activation, out[: len(out) // 4 * 4])


class IgnoresColumnTails(NumpyBackend):
    fails = "test_sum_rows", "test_gradient"

    def sum_rows(self, delta, out, *, alpha=1.0, beta=0.0):
        n = len(out) // 4 * 4
        super().sum_rows(delta[:, :n], out[:n], alpha=alpha, beta=beta)


class WritesBehindOut(NumpyBackend):
    """Up to a full vector of 16, into the memory that ``out`` is a piece of."""

    fails = ("test_sum_rows",)

    def sum_rows(self, delta, out, *, alpha=1.0, beta=0.0):
        super().sum_rows(delta, out, alpha=alpha, beta=beta)
        whole = out if out.base is None else out.base
        end = (out.ctypes.data - whole.ctypes.data) // out.itemsize + out.size
        whole[end : end + -out.size % 16] = 0


class WritesBeforeOut(NumpyBackend):
    fails = ("test_sum_rows",)

    def sum_rows(self, delta, out, *, alpha=1.0, beta=0.0):
        super().sum_rows(delta, out, alpha=alpha, beta=beta)
        whole = out if out.base is None else out.base
        start = (out.ctypes.data - whole.ctypes.data) // out.itemsize
        whole[max(start - 1, 0) : start] = 0


class BetaZeroKeepsNaN(NumpyBackend):
    fails = "test_matmul", "test_forward", "test_gradient"

    def matmul(self, a, b, out, *, transpose_a=False, transpose_b=False, alpha=1.0, beta=0.0):
        product = (a.T if transpose_a else a) @ (b.T if transpose_b else b)
        out[...] = alpha * product + beta * out


class SigmoidOverflows(NumpyBackend):
    fails = ("test_activate_far_out",)

    def activate(self, b, activation, out):
        if activation == "sigmoid":
            out[...] = 1 / (1 + np.exp(-(out + b)))
        else:
            super().activate(b, activation, out)


class SoftmaxOverflows(NumpyBackend):
    fails = ("test_activate_far_out",)

    def activate(self, b, activation, out):
        if activation == "softmax":
            e = np.exp(out + b)
            out[...] = e / e.sum(axis=1, keepdims=True)
        else:
            super().activate(b, activation, out)


class SoftmaxShiftsByAllRows(NumpyBackend):
    """By the maximum of all rows, beside which a row far below it vanishes."""

    fails = ("test_activate_far_out",)

    def activate(self, b, activation, out):
        if activation == "softmax":
            e = np.exp(out + b - (out + b).max())
            out[...] = e / e.sum(axis=1, keepdims=True)
        else:
            super().activate(b, activation, out)


class ComputesInFloat32(NumpyBackend):
    """float64 in, float64 out, and half of the digits lost between."""

    fails = "test_activate", "test_forward"

    def activate(self, b, activation, out):
        z = out.astype(np.float32)
        super().activate(b.astype(np.float32), activation, z)
        out[...] = z


class GatherForgetsStart(NumpyBackend):
    fails = ("test_gather",)

    def gather(self, rows, order, start, stop, scale, out):
        super().gather(rows, order, 0, stop - start, scale, out)


class GatherScalesBytesOnly(NumpyBackend):
    fails = ("test_gather",)

    def gather(self, rows, order, start, stop, scale, out):
        super().gather(rows, order, start, stop, scale if rows.dtype == np.uint8 else 1.0, out)


class DropsWithoutScaling(NumpyBackend):
    fails = "test_drop", DROPOUT

    def drop(self, a, by, out):
        super().drop(a, by, out)
        out *= 1 - by.rate


class DropsByRow(NumpyBackend):
    """The same units of every sample."""

    fails = "test_drop", DROPOUT

    def drop(self, a, by, out):
        rests = np.ones((1, a.shape[1]), a.dtype)
        super().drop(rests, by, rests)
        np.multiply(a, rests, out=out)


class Warns(NumpyBackend):
    fails = ("test_gather",)

    def gather(self, rows, order, start, stop, scale, out):
        warnings.warn("gather falls back to the host", stacklevel=2)
        super().gather(rows, order, start, stop, scale, out)


# Crossings
# -----------------------------------------------------------------------------------------


class ViewsAreCopies(NumpyBackend):
    fails = ("test_views_are_consecutive_and_share_memory",)

    def views(self, flat, shapes):
        return [piece.copy() for piece in super().views(flat, shapes)]


class HostSharesMemory(NumpyBackend):
    fails = ("test_to_numpy_is_a_copy",)

    def to_numpy(self, array):
        return array


class TakesFortranForC(NumpyBackend):
    fails = ("test_round_trip",)

    def asarray(self, host):
        return host.ravel(order="K").reshape(host.shape)


class MakesFloatsOfBytes(NumpyBackend):
    fails = ("test_round_trip",)

    def asarray(self, host):
        return super().asarray(host.astype(self.dtype) if host.dtype == np.uint8 else host)


class IsAlwaysThere(NumpyBackend):
    fails = ("test_it_says_whether_it_can_be_used",)

    @classmethod
    def unavailable(cls, index=None):
        return None


class StepCrosses(NumpyBackend):
    """Looks at its results on the host in every mini-batch."""

    fails = (PLAIN,)

    def forward(self, a_prev, w, b, activation, out):
        super().forward(a_prev, w, b, activation, out)
        self.to_numpy(out)


# Fused steps
# ---------------------------------------------------------------------------------------


class Fused(NumpyBackend):
    """The plain step under another name, for those below to spoil."""

    class Step(BackpropStep):
        name = "fused"

    def fused_step(self, plan):
        return self.Step(self, plan, stride=plan.n)

    def fused_feed(self, sizes, rows, scale, n):
        return Portions(self, sizes, rows, scale, n)


class FeedsAllButTheLast(Fused):
    fails = (FEED,)

    def fused_feed(self, sizes, rows, scale, n):
        def feed(layers, out):
            Portions(self, sizes, rows, scale, n)(layers, out)
            out[-sizes[-1] :] = out[: sizes[-1]]

        return feed


class FeedsUnscaled(Fused):
    fails = (FEED,)

    def fused_feed(self, sizes, rows, scale, n):
        return Portions(self, sizes, rows, 1.0, n)


class FeedsWithoutBiases(Fused):
    fails = (FEED,)

    def fused_feed(self, sizes, rows, scale, n):
        plain = Portions(self, sizes, rows, scale, n)
        return lambda layers, out: plain([layer._replace(b=0 * layer.b) for layer in layers], out)


class DropsTheTail(Fused):
    fails = (FUSED,)

    class Step(Fused.Step):
        def __call__(self, order, start, stop, rate, shrink):
            m = self._plan.batch_size
            super().__call__(order, start, start + (stop - start) // m * m, rate, shrink)


class DividesTheTailByTheFullBatch(Fused):
    fails = (FUSED,)

    class Step(Fused.Step):
        def _mini_batch(self, order, start, stop, rate, shrink):
            rate *= (stop - start) / self._plan.batch_size
            super()._mini_batch(order, start, stop, rate, shrink)


class FillsTheTailUp(Fused):
    """To a full mini-batch, with samples from the order's beginning."""

    fails = (FUSED,)

    class Step(Fused.Step):
        def _mini_batch(self, order, start, stop, rate, shrink):
            m = self._plan.batch_size
            if m not in self._work:  # an epoch of one smaller mini-batch
                self._work = workspaces(self._backend, self._plan.sizes, {m})
            order = np.resize(order, max(start + m, len(order)))
            super()._mini_batch(order, start, start + m, rate, shrink)


class IgnoresTheOrder(Fused):
    fails = (FUSED,)

    class Step(Fused.Step):
        def __call__(self, order, start, stop, rate, shrink):
            super().__call__(np.sort(order), start, stop, rate, shrink)


class RunsToTheEnd(Fused):
    """Of the epoch, wherever it was to stop."""

    fails = (FUSED,)

    class Step(Fused.Step):
        def __call__(self, order, start, stop, rate, shrink):
            super().__call__(order, start, len(order), rate, shrink)


class KeepsTheFirstOrder(Fused):
    """As a captured graph would that holds the first order's address."""

    fails = FUSED, LEARNS

    class Step(Fused.Step):
        first = None

        def __call__(self, order, start, stop, rate, shrink):
            self.first = order if self.first is None else self.first
            super().__call__(self.first, start, stop, rate, shrink)


class KeepsTheFirstRate(Fused):
    """As a captured graph would that holds the first call's numbers."""

    fails = (FUSED,)

    class Step(Fused.Step):
        first = None

        def __call__(self, order, start, stop, rate, shrink):
            self.first = self.first or (rate, shrink)
            super().__call__(order, start, stop, *self.first)


class KeepsTheWeights(Fused):
    """Trains a copy of them, and never gives it back."""

    fails = (FUSED,)

    class Step(Fused.Step):
        def __init__(self, backend, plan, stride):
            layers = tuple(layer._replace(w=layer.w.copy()) for layer in plan.layers)
            super().__init__(backend, replace(plan, layers=layers), stride)


class TakesAllSamplesForBytes(Fused):
    fails = FUSED, LEARNS

    class Step(Fused.Step):
        def __init__(self, backend, plan, stride):
            super().__init__(backend, replace(plan, scale=1 / 255), stride)


class IgnoresTheWeights(Fused):
    """As a step would that has none, and does not decline."""

    fails = (WEIGHTS,)

    class Step(Fused.Step):
        def __init__(self, backend, plan, stride):
            super().__init__(backend, replace(plan, weights=None), stride)


class RestartsLongCalls(Fused):
    """Right for whole epochs and single mini-batches, wrong for what train() mostly asks."""

    fails = (FUSED,)

    class Step(Fused.Step):
        def __call__(self, order, start, stop, rate, shrink):
            if stop - start > self._plan.batch_size:
                start, stop = 0, stop - start
            super().__call__(order, start, stop, rate, shrink)


class NobodyRests(Fused):
    """As a step would be that was written before there was dropout."""

    fails = (DROPOUT,)

    class Step(Fused.Step):
        def __init__(self, backend, plan, stride):
            super().__init__(backend, replace(plan, dropout=None), stride)


class DropsInEveryEpochTheSame(Fused):
    fails = (DROPOUT,)

    class Step(Fused.Step):
        def __call__(self, *arguments):
            if self._plan.dropout is not None:
                self._plan.dropout.epoch = 1
            super().__call__(*arguments)


class OneActivationForAll(Fused):
    """The first hidden layer's, in every hidden layer."""

    fails = (FUSED,)

    class Step(Fused.Step):
        def __init__(self, backend, plan, stride):
            *hidden, last = plan.layers
            layers = *(layer._replace(activation=hidden[0].activation) for layer in hidden), last
            super().__init__(backend, replace(plan, layers=layers), stride)


# The suites
# ----------------------------------------------------------------------------------------

WRONG = [cls for cls in list(globals().values()) if hasattr(cls, "fails")]


class Right(Fused):
    """The control: nothing may fail. Its step takes two mini-batches a call, and no more."""

    fails = tuple({name for cls in WRONG for name in cls.fails})

    class Step(Fused.Step):
        def __call__(self, order, start, stop, rate, shrink):
            assert 0 < stop - start <= self.stride * self._plan.batch_size
            super().__call__(order, start, stop, rate, shrink)

    def fused_step(self, plan):
        return self.Step(self, plan, stride=2)


TESTS = [name for name in dir(BackendConformance) if name.startswith("test_")]

for _cls in (*WRONG, Right):
    # Only the tests that are of interest: None in place of a test removes it.
    _others = {name: None for name in TESTS if name not in _cls.fails}
    _suite = f"Test{_cls.__name__}"
    globals()[_suite] = type(_suite, (BackendConformance,), {"device": _cls, **_others})
