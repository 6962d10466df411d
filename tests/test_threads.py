"""How many threads share the work, and that nothing of it stays behind."""

import _thread
import hashlib
import os
import sys
from threading import Barrier, Thread
from types import SimpleNamespace

import numpy as np
import pytest
from threadpoolctl import threadpool_info

from fastnn import threads
from fastnn.threads import come_to_rest, team, together, using


def blas_threads():
    np.ones((2, 2)) @ np.ones((2, 2))
    return [
        library["num_threads"]
        for library in threadpool_info()
        if library["user_api"] == "blas" and threads.OWN_BLAS not in library["filepath"]
    ]


def test_a_team_is_as_large_as_pays(monkeypatch):
    monkeypatch.setattr(threads, "processors", lambda: 4)
    assert [team(work, 10) for work in (0, 9, 10, 29, 30, 1000)] == [1, 1, 1, 2, 3, 4]


def test_or_as_large_as_is_asked_for():
    with using(7):
        assert team(0, 10) == 7
        with using(None):
            assert team(0, 10) == 7
    assert team(0, 10) == 1


def test_others_blas_has_so_many_threads_and_then_as_many_as_before():
    before = blas_threads()
    with using(1):
        assert set(blas_threads()) == {1}
    assert blas_threads() == before


def test_blocks_that_overlap_leave_it_as_it_was():
    before, steps = blas_threads(), Barrier(2, timeout=10)

    def overlapping(first):
        with using(1):
            steps.wait()  # both are in
            if not first:
                steps.wait()  # the other has left
        if first:
            steps.wait()

    others = [Thread(target=overlapping, args=(first,)) for first in (True, False)]
    for other in others:
        other.start()
    for other in others:
        other.join()
    assert blas_threads() == before


@pytest.mark.parametrize("size", [1, 2, 5])
def test_every_rank_works_once_and_all_can_meet(size):
    met, ranks = Barrier(size, timeout=10), []

    def work(rank):
        met.wait()
        ranks.append(rank)

    together(size, work)
    assert sorted(ranks) == list(range(size))


with_affinity = pytest.mark.skipif(
    not hasattr(os, "sched_setaffinity"), reason="this system has no affinity of threads"
)


@with_affinity
def test_a_team_is_set_on_processors_of_its_own_and_may_be_moved_from_there():
    allowed, size = os.sched_getaffinity(0), min(2, threads.processors())
    began, may = [None] * size, [None] * size

    def look(rank):
        began[rank] = threads._getcpu()()
        may[rank] = os.sched_getaffinity(0)

    # A busy system may move a thread on before it looks, but not each time.
    apart = 0
    for _ in range(20):
        together(size, look)
        assert may == [allowed] * size
        apart += len(set(began)) == size
    assert apart >= 10
    assert os.sched_getaffinity(0) == allowed


@with_affinity
@pytest.mark.parametrize(("allowed", "here"), [({3}, 3), ({0, 1}, 5)])
def test_places_are_left_to_the_system_where_there_are_too_few(allowed, here, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: allowed)
    monkeypatch.setattr(threads, "_getcpu", lambda: lambda: here)
    assert threads._places(2) == []


@with_affinity
def test_places_begin_with_the_callers_own_and_are_all_different(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {1, 4, 6, 7})
    monkeypatch.setattr(threads, "_getcpu", lambda: lambda: 6)
    assert threads._places(3) == [6, 7, 1]


@pytest.mark.parametrize("reason", ["no affinity", "no getcpu"])
def test_a_system_without_places_works_as_well(reason, monkeypatch):
    if reason == "no affinity":
        monkeypatch.delattr(os, "sched_setaffinity", raising=False)
    else:
        monkeypatch.setattr(threads, "_getcpu", lambda: None)
    done = []
    together(3, done.append)
    assert sorted(done) == [0, 1, 2]


on_linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells what threads do")


@on_linux
def test_the_threads_of_blas_are_sent_home_and_come_again_for_a_product(monkeypatch):
    if not all(hasattr(each.dynlib, "blas_thread_shutdown_") for each in threads._others_blas()):
        pytest.skip("NumPy's BLAS is not OpenBLAS")
    waited = []
    monkeypatch.setattr(threads, "sleep", waited.append)
    monkeypatch.setattr(sys, "_current_frames", lambda: {1: None})
    a = np.random.default_rng(0).random((600, 600))
    right = a @ a
    for _ in range(3):
        come_to_rest()
        assert np.array_equal(a @ a, right)
    assert not waited


@pytest.mark.parametrize("openblas", [True, False])
@pytest.mark.parametrize("told", [True, False])
def test_nobody_is_sent_home_while_another_thread_may_be_at_a_product(monkeypatch, openblas, told):
    sent, waited = [], []
    library = SimpleNamespace(dynlib=SimpleNamespace())
    if openblas:
        library.dynlib.blas_thread_shutdown_ = lambda: sent.append("home")
    monkeypatch.setattr(threads, "_others_blas", lambda: [library])
    monkeypatch.setattr(threads, "_others_work", lambda: not (sent or waited) if told else None)
    monkeypatch.setattr(threads, "sleep", waited.append)
    steps, other = Barrier(2, timeout=10), _thread.start_new_thread
    other(lambda: (steps.wait(), steps.wait()), ())  # which threading.active_count() leaves out
    steps.wait()
    come_to_rest()
    assert (sent, waited) == ([], [0.001] if told else [])
    waited.clear()
    steps.wait()
    monkeypatch.setattr(sys, "_current_frames", lambda: {1: None})  # it has ended, or will at once
    come_to_rest()
    assert (sent, waited) == (
        ["home"] if openblas else [],
        [0.001] if told and not openblas else [],
    )


@pytest.mark.parametrize(("busy", "waits"), [(0, 0), (0.1, 0.1), (9, 0.15)])
def test_threads_that_still_work_are_waited_for_but_not_forever(busy, waits, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(threads, "perf_counter", lambda: now[0])
    monkeypatch.setattr(threads, "_others_blas", list)
    monkeypatch.setattr(threads, "_others_work", lambda: now[0] < busy)
    monkeypatch.setattr(threads, "sleep", lambda seconds: now.append(now.pop() + seconds))
    come_to_rest()
    assert now[0] == pytest.approx(waits, abs=0.002)


@on_linux
def test_it_is_seen_whether_another_thread_works():
    def work():
        while not seen:
            hashlib.pbkdf2_hmac("sha256", b"", b"", 2000)  # without Python's lock

    seen = []
    other = Thread(target=work)
    other.start()
    seen.append(any(threads._others_work() for _ in range(100)))
    other.join()
    assert seen == [True]
    come_to_rest()  # joined, it may be about to end yet
    assert threads._others_work() is False


def test_a_system_may_not_tell(monkeypatch):
    monkeypatch.setattr(threads, "glob", lambda pattern: [])
    assert threads._others_work() is None
