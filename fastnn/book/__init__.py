"""The programs of Nielsen's book, with their own names and printout, on any device.

A script written for the book runs once its import lines are these, or those of them it needs:

>>> from fastnn.book import mnist_loader, network, network2

So does one that imports the class, with ``from fastnn.book.network import Network``. Where the book
passes over the mini-batches in Python, ``SGD`` here is one call of :func:`fastnn.train`; between
epochs ``weights`` and ``biases`` are what the device has made of them.

Random numbers come from NumPy's global state, as in the book: ``np.random.seed(0)`` gives the same
run again, with the very weights that the book's programs begin with. The order of the samples is
seeded from there, too, where they take Python's :mod:`random`; the list itself is not shuffled.
"""

from fastnn.book import mnist_loader, network, network2
from fastnn.book.network import Network

__all__ = ["Network", "mnist_loader", "network", "network2"]
