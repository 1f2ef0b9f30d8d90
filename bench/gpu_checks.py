"""What `bench.gpu` makes sure of before it times anything: each result against a reference."""

from typing import Any

import numpy as np

from bench import gpu_work, work

CLOSE = 1e-4  # outputs of the lean and the drawn network, float32


def check(size: gpu_work.Size, pool: gpu_work.Pool, precision: str) -> dict[str, Any]:
    """All checks against a reference, said and returned."""
    found = {
        **outputs_beside_drawn(size, pool.images[: work.BATCH], precision),
        **flip_beside_numpy(pool.part(0, work.BATCH)),
        **two_epochs(size, pool, precision),
    }
    all_hold = found["outputs_hold"] and found["flip_holds"]
    gpu_work.say(f"check: {'all hold' if all_hold else 'NOT ALL HOLD'}")
    return {**found, "all_hold": all_hold}


def outputs_beside_drawn(size: gpu_work.Size, images: np.ndarray, precision: str) -> dict[str, Any]:
    """Largest difference of probabilities from those of the drawn network in exact float32."""
    import jax

    from pipeline.network import backend, lean, resunet

    side, filters = size.side, size.filters
    drawn = resunet.build(image_size=side, filters=filters, height=side, width=side)
    _stir(drawn)
    lean_of = {
        name: lean.build(image_size=side, filters=filters, dtype=backend.policy(name))
        for name in dict.fromkeys(["float32", precision])
    }
    for network in lean_of.values():
        lean.assign(network, lean.to_lean(lean.weights(drawn)))
    with jax.default_matmul_precision("highest"):
        wanted = _predicted(drawn, images)
        exact = _predicted(lean_of["float32"], images)
    found = {"float32_highest": exact, "float32": _predicted(lean_of["float32"], images)}
    if precision != "float32":
        found[precision] = _predicted(lean_of[precision], images)
    apart = {name: float(np.abs(own - wanted).max()) for name, own in found.items()}
    for name, value in apart.items():
        gpu_work.say(f"check: lean {name} beside the drawn network: largest difference {value:.2g}")
    spread = float(wanted.std())
    gpu_work.say(f"check: (probabilities there: mean {wanted.mean():.3f}, deviation {spread:.3f})")
    return {"outputs_apart": apart, "outputs_hold": apart["float32_highest"] < CLOSE}


def _stir(model: Any) -> None:
    """Random weights and batch statistics, so that nothing is hidden by a zero or a one."""
    generator = np.random.default_rng(gpu_work.SEED)
    for variable in model.variables:
        if variable.name in ("moving_variance", "gamma"):
            low, high = 0.5, 1.5
        else:
            high = 2.4 / np.sqrt(np.prod(variable.shape[:-1])) if len(variable.shape) == 4 else 0.5
            low = -high
        variable.assign(generator.uniform(low, high, variable.shape))


def _predicted(model: Any, images: np.ndarray) -> np.ndarray:
    import jax

    variables = [
        [one.value for one in part]
        for part in (model.trainable_variables, model.non_trainable_variables)
    ]
    found = jax.jit(lambda own, shown: model.stateless_call(*own, shown, training=False)[0])
    return np.asarray(found(variables, images))


def flip_beside_numpy(pool: gpu_work.Pool) -> dict[str, Any]:
    """A pure mirroring moves whole pixels, so that the device must give them unchanged."""
    from pipeline.network import augment

    only_flip = augment.Settings(**{**dict.fromkeys(gpu_work.AUGMENTATION, 0.0), "flip": 1.0})
    side, count = pool.images.shape[1], len(pool.images)
    generator = np.random.default_rng(gpu_work.SEED)
    drawn = augment.draw(generator, slices=count, side=side, settings=only_flip)
    images, masks = augment.apply(pool.images, pool.masks[..., None] / np.float32(255), drawn)
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
    """Take one compiled epoch twice from the same weights and compare all that it leaves."""
    from pipeline.network import recipe, steps

    network = gpu_work.network_of(size, precision)
    own, start, ends = steps.make(network), recipe.variables(network), []
    epoch, source = (
        gpu_work.epoch_of(pool.part(0, size.slices)),
        gpu_work.placed(pool.part(0, size.slices)),
    )
    for _ in range(2):
        recipe.restore(network, start)
        losses = gpu_work.train(own, source, epoch)
        ends.append([losses, *recipe.variables(network)])
    equal = all(np.array_equal(a, b) for a, b in zip(*ends, strict=True))
    apart = max(float(np.abs(a - b).max()) for a, b in zip(*ends, strict=True))
    told = "bit for bit the same" if equal else f"not the same, by {apart:.2g} at most"
    gpu_work.say(f"check: an epoch of {precision} taken twice from the same weights: {told}")
    return {"epoch_twice_equal": equal, "epoch_twice_apart": apart}
