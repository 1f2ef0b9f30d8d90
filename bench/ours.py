"""gliaflow's own step, and the published system's way of doing it, both in Keras."""

import tempfile
from pathlib import Path

import keras
import numpy as np

from bench import work
from flows import prediction
from pipeline.adapters import forms
from pipeline.domain import masks as scan_masks
from pipeline.network import backend, lean, recipe, resunet, steps
from pipeline.network.losses import FocalTversky


def gliaflow(precision: str) -> work.System:
    """The lean network on slices in memory, as `train` has them; OpenVINO predicts, as it does
    in `gliaflow predict` where it is the fastest.
    """
    backend.make_repeatable(1)
    side = work.SIDE
    network = lean.build(image_size=side, filters=work.FILTERS, dtype=backend.policy(precision))
    loss = recipe.Loss(missed_weight=work.MISSED_WEIGHT, exponent=work.EXPONENT)
    recipe.compile_model(network, loss=loss, learning_rate=work.LEARNING_RATE)
    own = steps.make(network)
    images, masks = work.batch()
    shares, all_of_them = (masks[..., 0] * 255).astype(np.uint8), np.arange(work.BATCH)[None]
    fastest, rule = _exported(precision), scan_masks.Rule(0.5, 1, "all", 0)

    def segment(folder: Path, out: Path) -> None:
        patients = {one.name: sorted(one.iterdir()) for one in sorted(folder.iterdir())}
        prediction.segment(fastest, patients, folder, out, rule=rule, overlays=False)

    return work.System(
        train=lambda: own.train(images, shares, all_of_them, None),
        predict=lambda: fastest.predict(images),
        segment=segment,
        parameters=network.count_params(),
    )


def _exported(precision: str) -> forms.Fastest:
    side, form = work.SIDE, f"OpenVINO {precision}"
    drawn = resunet.build(image_size=side, filters=work.FILTERS, height=side, width=side)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.xml"
        forms.save(drawn, path)
        predict = forms.compiled(path, form)
    return forms.Fastest(predict, forms.Proof(form, 0.0, 0.0, 0), drawn.name, (side, side, 3))


def published_way() -> work.System:
    """The network as drawn, compiled as Keras does by default; each file is read and resized
    by OpenCV in each epoch.
    """
    import cv2

    side = work.SIDE
    network = resunet.build(image_size=side, filters=work.FILTERS, height=side, width=side)
    network.compile(
        optimizer=keras.optimizers.Adam(work.LEARNING_RATE),
        loss=FocalTversky(missed_weight=work.MISSED_WEIGHT, exponent=work.EXPONENT),
        jit_compile=False,  # XLA halves the speed on a CPU
    )
    folder = tempfile.TemporaryDirectory()
    pairs = work.write_files(Path(folder.name))

    def read() -> tuple[np.ndarray, np.ndarray]:
        folder.name  # noqa: B018 - kept until the last read
        images = [cv2.resize(cv2.imread(str(image)), (side, side)) for image, _ in pairs]
        masks = [
            cv2.resize(cv2.imread(str(mask), cv2.IMREAD_GRAYSCALE), (side, side))
            for _, mask in pairs
        ]
        return np.stack(images), np.stack(masks)[..., None].astype(np.float32) / 255

    return work.System(
        train=lambda: network.train_on_batch(*read()),
        predict=lambda: network.predict_on_batch(read()[0]),
        segment=lambda folder, out: work.by_files(
            folder, out, lambda images: network.predict_on_batch(images)[..., 0]
        ),
        parameters=network.count_params(),
    )
