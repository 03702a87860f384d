"""Host launches against device time: limits, order and the saving of a graph."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sim.cost.kernels.launch import eager_s, graph_s, graph_saving_s

times = st.floats(1e-7, 10.0)
counts = st.integers(1, 10_000)


@given(times, counts)
def test_eager_lies_between_the_larger_and_the_sum(kernels_s, launches):
    host = launches * 5e-6
    chain = float(eager_s(kernels_s, launches, host_s=5e-6))
    assert max(kernels_s, host) * (1 - 1e-12) <= chain <= (kernels_s + host) * (1 + 1e-12)


def test_limits_are_device_time_and_host_time():
    np.testing.assert_allclose(eager_s(1.0, 10, host_s=5e-6), 1.0, rtol=1e-9)
    np.testing.assert_allclose(eager_s(1e-6, 1000, host_s=5e-6), 5e-3, rtol=1e-9)
    assert float(eager_s(0.0, 0, host_s=5e-6)) < 1e-300


@given(times, counts)
def test_more_launches_never_take_less(kernels_s, launches):
    fewer = eager_s(kernels_s, launches, host_s=5e-6)
    assert eager_s(kernels_s, launches + 1, host_s=5e-6) >= fewer


def test_graph_is_one_launch_kernels_and_gaps():
    assert np.isclose(graph_s(1e-3, 101, graph_launch_s=1e-5, graph_node_s=1e-6), 1e-3 + 1e-5 + 100 * 1e-6)


def test_graph_saves_launches_of_short_kernels_and_nothing_of_long_ones():
    costs = {"host_s": 6e-6, "graph_launch_s": 1e-5, "graph_node_s": 1e-6}
    short, long = graph_saving_s(np.array([1e-3, 1.0]), 1000, **costs)
    assert np.isclose(short, 6e-3 - (1e-3 + 1e-5 + 999e-6), rtol=1e-3)
    assert long == 0.0


def test_arrays_agree_with_scalars():
    device = np.array([[1e-4], [1e-2]])
    launches = np.array([10, 100, 1000])
    table = eager_s(device, launches, host_s=5e-6)
    assert table.shape == (2, 3)
    assert table[1, 2] == eager_s(1e-2, 1000, host_s=5e-6)
