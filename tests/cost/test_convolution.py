"""Convolutions as matrix products: sizes, FLOP and bytes against a hand count and against closed forms."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.cost.kernels.convolution import PASSES, Convolution, conv_as_gemm, convolution, output_size
from sim.spec.device import Device

H100 = Device(
    "h100", "hopper", {"fp32": 67e12, "tf32": 495e12, "bf16": 989e12}, 80e9, 3.35e12, 132, 50e6, "nvidia"
)


@given(st.integers(1, 40), st.integers(1, 7), st.integers(1, 4), st.integers(0, 3), st.integers(1, 3))
def test_output_size_counts_the_places_a_filter_fits(size, kernel, stride, padding, dilation):
    span = dilation * (kernel - 1) + 1
    places = len(range(0, size + 2 * padding - span + 1, stride))
    if places == 0:
        with pytest.raises(ValueError, match="larger than input"):
            output_size(size, kernel, stride, padding, dilation)
    else:
        assert output_size(size, kernel, stride, padding, dilation) == places


def test_forward_flop_equals_a_count_of_multiplications():
    conv = Convolution(2, 4, 6, (7, 5), (3, 2), (2, 1, 1), groups=2)
    work = conv_as_gemm(conv)
    count = 0
    for _ in itertools.product(range(2), range(6), range(3), range(4)):  # image, output channel, row, column
        count += 2 * (4 // 2) * 3 * 2  # multiply and add for every input channel of the group and tap
    assert work.flop == count
    assert 2 * work.batch * work.m * work.n * work.k == count


@given(
    st.integers(1, 8),
    st.integers(1, 16),
    st.integers(1, 16),
    st.integers(4, 20),
    st.integers(1, 3),
    st.integers(1, 2),
)
def test_all_passes_have_the_same_flop_and_bytes(batch, c_in, c_out, size, kernel, stride):
    conv = Convolution(batch, c_in, c_out, (size,) * 3, (kernel,) * 3, (stride,) * 3, (1, 1, 1))
    works = [conv_as_gemm(conv, name) for name in PASSES]
    np.testing.assert_allclose([w.flop for w in works], works[0].flop, rtol=1e-12)
    assert len({float(w.moved_bytes) for w in works}) == 1


def test_resnet50_first_layer_matches_the_published_size():
    # 7 x 7, stride 2, 3 -> 64 channels on 224 x 224 (He et al. 2015): 112 x 112 output, 118 million products
    work = conv_as_gemm(Convolution(1, 3, 64, (224, 224), (7, 7), (2, 2), (3, 3)))
    assert (float(work.m), float(work.n), float(work.k)) == (112 * 112, 64, 147)
    assert float(work.flop) / 2 == 118_013_952


def test_pointwise_convolution_is_the_plain_matrix_product():
    work = conv_as_gemm(Convolution(4, 32, 48, (9, 9), (1, 1)))
    assert (float(work.m), float(work.n), float(work.k)) == (4 * 81, 48, 32)
    assert float(work.moved_bytes) == 2 * (4 * 81 * (32 + 48) + 32 * 48)


def test_weight_gradient_contracts_over_the_pixels():
    work = conv_as_gemm(Convolution(4, 32, 48, (9, 9), (3, 3), padding=(1, 1)), "weight_gradient")
    assert (float(work.m), float(work.n), float(work.k)) == (48, 32 * 9, 4 * 81)


def test_arrays_broadcast_and_agree_with_scalars():
    batches = np.array([1.0, 8.0, 64.0])
    together = convolution([], H100, Convolution(batches, 64, 64, (56, 56), (3, 3), padding=(1, 1)))
    alone = [
        convolution([], H100, Convolution(b, 64, 64, (56, 56), (3, 3), padding=(1, 1))).seconds
        for b in batches
    ]
    np.testing.assert_allclose(together.seconds, alone)
    assert np.all(np.diff(together.seconds) > 0)


@pytest.mark.parametrize("name", PASSES)
def test_prediction_is_never_below_the_roofline(name):
    conv = Convolution(32, np.array([16, 64, 256, 1024]), 256, (28, 28), (3, 3), padding=(1, 1))
    estimate = convolution([], H100, conv, pass_name=name)
    assert np.all(estimate.seconds >= estimate.lower_bound_s)


def test_large_convolution_comes_near_the_matrix_units():
    estimate = convolution([], H100, Convolution(256, 512, 512, (28, 28), (3, 3), padding=(1, 1)))
    assert 0.4 < float(estimate.efficiency_frac) <= 1


def test_depthwise_costs_far_less_than_dense_but_uses_the_device_worse():
    dense = convolution([], H100, Convolution(64, 256, 256, (56, 56), (3, 3), padding=(1, 1)))
    depthwise = convolution([], H100, Convolution(64, 256, 256, (56, 56), (3, 3), padding=(1, 1), groups=256))
    work = conv_as_gemm(Convolution(64, 256, 256, (56, 56), (3, 3), padding=(1, 1), groups=256))
    assert depthwise.seconds < dense.seconds
    assert work.flop / depthwise.seconds < 0.1 * H100.flop_per_s["bf16"]


def test_unknown_pass_and_mismatched_dimensions_are_refused():
    with pytest.raises(ValueError, match="unknown pass"):
        conv_as_gemm(Convolution(1, 1, 1, (3, 3), (3, 3)), "sideways")
    with pytest.raises(ValueError, match="kernel has 3 dimensions"):
        Convolution(1, 1, 1, (3, 3), (3, 3, 3))
    with pytest.raises(ValueError, match="stride needs 3"):
        Convolution(1, 1, 1, (3, 3, 3), (3, 3, 3), stride=(1, 1))
