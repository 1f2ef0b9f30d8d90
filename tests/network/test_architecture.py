import pytest

from pipeline.errors import GliaflowError
from pipeline.network import architecture
from pipeline.network.architecture import network_prefixes, prefixes_in


def outputs(*prefixes: str) -> list[str]:
    """Return layer names of networks with these prefixes, and of layers around them."""
    layers = ("open_1", "bottom_wide", "probability")
    return ["rescale", *(prefix + layer for prefix in prefixes for layer in layers), "mean"]


def test_a_single_network_has_no_prefix():
    assert network_prefixes(1) == [""]


def test_the_networks_of_an_ensemble_are_numbered_from_one():
    assert network_prefixes(3) == ["network_1_", "network_2_", "network_3_"]


def test_each_network_is_followed_by_its_refinement():
    assert network_prefixes(1, refined=True) == ["network_1_", "finer_1_"]
    assert network_prefixes(2, refined=True) == [
        "network_1_", "finer_1_", "network_2_", "finer_2_",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("layer_names", "expected"),
    [
        (outputs(""), ([""], [])),
        (outputs("network_1_", "network_2_"), (["network_1_", "network_2_"], [])),
        (outputs("network_1_", "finer_1_"), (["network_1_"], ["finer_1_"])),
        (
            outputs("finer_1_", "network_1_", "network_2_", "finer_2_"),
            (["network_1_", "network_2_"], ["finer_1_", "finer_2_"]),
        ),
        ([], ([""], [])),
    ],
    ids=["single", "ensemble", "refined", "refined ensemble", "no layers"],
)
def test_prefixes_are_read_from_layer_names(layer_names, expected):
    assert prefixes_in(layer_names) == expected


@pytest.mark.parametrize(("networks", "refined"), [(1, False), (3, False), (1, True), (2, True)])
def test_prefixes_read_from_layer_names_are_those_the_networks_were_given(networks, refined):
    prefixes = network_prefixes(networks, refined=refined)
    coarse, refinements = prefixes_in(outputs(*prefixes))
    assert sorted(coarse + refinements) == sorted(prefixes)
    assert len(refinements) == (networks if refined else 0)


def test_encoder_blocks_are_listed_from_the_top_to_the_bottom():
    names = ["down_2_wide", "bottom_wide", "rise_0_wide", "down_1_wide", "down_1_narrow"]
    assert architecture.encoder_blocks(names) == ["down_1", "down_2", "bottom"]


def test_decoder_blocks_are_distinguished_from_encoder_blocks():
    assert architecture.decoder_block(3) == "rise_3"
    assert architecture.is_decoder_block("rise_3")
    assert not architecture.is_decoder_block("down_3")


def test_a_skip_connection_comes_from_the_encoder_block_of_the_same_depth():
    assert architecture.skip_source("rise_3") == "down_3_wide"
    assert architecture.skip_source("rise_1") == "down_1_wide"
    assert architecture.skip_source("rise_0") == "open_2"


@pytest.mark.parametrize(("image_size", "factor"), [(256, 1), (128, 2), (64, 4), (32, 8)])
def test_the_downsampling_factor_is_the_ratio_of_the_sides(image_size, factor):
    size = {"height": 256, "width": 256}
    assert architecture.downsampling_factor(image_size=image_size, **size) == factor


def test_an_image_size_that_does_not_divide_is_refused_with_sizes_that_do():
    with pytest.raises(GliaflowError, match=r"set one of \[16, 32, 64, 128, 256\]"):
        architecture.downsampling_factor(image_size=96, height=256, width=256)


@pytest.mark.parametrize(("height", "width"), [(64, 128), (72, 72)], ids=["no square", "not by 16"])
def test_slices_that_are_not_square_or_not_multiples_of_16_are_refused(height, width):
    with pytest.raises(GliaflowError, match=f"{height}x{width} px; expected square ones"):
        architecture.downsampling_factor(image_size=16, height=height, width=width)


def test_a_refined_network_halves_the_downsampling_factor():
    assert architecture.refined_factor(4) == 2
    assert architecture.refined_factor(2) == 1


@pytest.mark.parametrize("factor", [1, 3])
def test_an_odd_factor_cannot_be_refined(factor):
    with pytest.raises(GliaflowError, match=f"side is {factor} times"):
        architecture.refined_factor(factor)
