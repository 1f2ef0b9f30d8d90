"""Checks that `bench.gpu` makes before it times anything: each result against a reference."""

from typing import Any

import numpy as np

from bench import workload
from bench.gpu import gpu_work

CLOSE = 1e-4  # between outputs of the fused and the plain network, float32


def check(size: gpu_work.Size, pool: gpu_work.Pool, precision: str) -> dict[str, Any]:
    """Run all checks; print and return their results."""
    results = {
        **outputs_against_plain(size, pool.images[: workload.BATCH], precision),
        **flip_against_numpy(pool.part(0, workload.BATCH)),
        **two_epochs(size, pool, precision),
    }
    all_hold = results["outputs_hold"] and results["flip_holds"]
    gpu_work.say(f"check: {'all hold' if all_hold else 'NOT ALL HOLD'}")
    return {**results, "all_hold": all_hold}


def outputs_against_plain(
    size: gpu_work.Size, images: np.ndarray, precision: str
) -> dict[str, Any]:
    """Compare probabilities of the fused network with the plain one's in exact float32."""
    import jax

    from pipeline.network import backend, fused, resunet

    side, filters = size.side, size.filters
    plain = resunet.build(image_size=side, filters=filters, height=side, width=side)
    _stir(plain)
    fused_networks = {
        name: fused.build(image_size=side, filters=filters, dtype=backend.policy(name))
        for name in dict.fromkeys(["float32", precision])
    }
    for network in fused_networks.values():
        fused.set_layer_weights(network, fused.fuse(fused.layer_weights(plain)))
    with jax.default_matmul_precision("highest"):
        expected = _predict(plain, images)
        exact = _predict(fused_networks["float32"], images)
    outputs = {"float32_highest": exact}
    outputs |= {name: _predict(network, images) for name, network in fused_networks.items()}
    apart = {name: float(np.abs(output - expected).max()) for name, output in outputs.items()}
    for name, value in apart.items():
        gpu_work.say(
            f"check: fused {name} against the plain network: largest difference {value:.2g}"
        )
    mean, deviation = expected.mean(), expected.std()
    gpu_work.say(f"check: (its probabilities: mean {mean:.3f}, standard deviation {deviation:.3f})")
    return {"outputs_apart": apart, "outputs_hold": apart["float32_highest"] < CLOSE}


def _stir(model: Any) -> None:
    """Set random weights and batch statistics, so that no error hides behind a zero or a one."""
    rng = np.random.default_rng(gpu_work.SEED)
    for variable in model.variables:
        if variable.name in ("moving_variance", "gamma"):
            low, high = 0.5, 1.5
        else:
            high = 2.4 / np.sqrt(np.prod(variable.shape[:-1])) if len(variable.shape) == 4 else 0.5
            low = -high
        variable.assign(rng.uniform(low, high, variable.shape))


def _predict(model: Any, images: np.ndarray) -> np.ndarray:
    import jax

    variables = [
        [variable.value for variable in group]
        for group in (model.trainable_variables, model.non_trainable_variables)
    ]
    call = jax.jit(lambda values, x: model.stateless_call(*values, x, training=False)[0])
    return np.asarray(call(variables, images))


def flip_against_numpy(pool: gpu_work.Pool) -> dict[str, Any]:
    """Compare mirrored slices with numpy's: mirroring moves whole pixels and changes no value."""
    from pipeline.network import augment

    only_flip = augment.Augmentation(**{**dict.fromkeys(gpu_work.AUGMENTATION, 0.0), "flip": 1.0})
    side, count = pool.images.shape[1], len(pool.images)
    rng = np.random.default_rng(gpu_work.SEED)
    sampled = augment.sample(rng, slices=count, side=side, settings=only_flip)
    images, masks = augment.apply(pool.images, pool.masks[..., None] / np.float32(255), sampled)
    wrong = int((np.asarray(images) != pool.images[:, :, ::-1]).sum())
    apart = float(np.abs(np.asarray(masks)[..., 0] - pool.masks[:, :, ::-1] / 255).max())
    gpu_work.say(
        f"check: mirrored slices: {wrong} values differ; masks: largest difference {apart:.2g}"
    )
    return {
        "flip_wrong": wrong,
        "flip_masks_apart": apart,
        "flip_holds": not wrong and apart < 1e-6,
    }


def two_epochs(size: gpu_work.Size, pool: gpu_work.Pool, precision: str) -> dict[str, Any]:
    """Train one epoch twice from the same weights; compare losses and all variables."""
    from pipeline.network import epoch_loop, steps

    network = gpu_work.network_of(size, precision)
    compiled, initial = steps.compile_steps(network), epoch_loop.get_variables(network)
    training = pool.part(0, size.slices)
    epoch, source = gpu_work.epoch_of(training), gpu_work.on_device(training)
    ends = []
    for _ in range(2):
        epoch_loop.set_variables(network, initial)
        losses = gpu_work.train(compiled, source, epoch)
        ends.append([losses, *epoch_loop.get_variables(network)])
    equal = all(np.array_equal(a, b) for a, b in zip(*ends, strict=True))
    apart = max(float(np.abs(a - b).max()) for a, b in zip(*ends, strict=True))
    gpu_work.say(
        f"check: an epoch in {precision}, trained twice from the same weights: "
        f"{comparison_text(equal, apart)}"
    )
    return {"epoch_twice_equal": equal, "epoch_twice_apart": apart}


def comparison_text(equal: bool, apart: float) -> str:
    """Say whether two results are equal; `apart` is their largest difference."""
    return "identical bit for bit" if equal else f"different by at most {apart:.2g}"
