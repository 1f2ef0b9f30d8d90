"""gliaflow's own step, and the published way of training, both in Keras."""

import atexit
import shutil
import tempfile
from pathlib import Path

import keras
import numpy as np

from bench import workload
from pipeline.adapters.model import predictors, runtimes
from pipeline.app import prediction
from pipeline.domain.postprocessing import PostProcessing
from pipeline.network import backend, epoch_loop, fused, resunet, steps
from pipeline.network.losses import FocalTversky

POST = PostProcessing(0.5, 1, "all", 0)


def gliaflow(precision: str) -> workload.System:
    """Train the fused network on slices in memory; predict in OpenVINO.

    `train` does the same, and so does `gliaflow predict` where OpenVINO is the fastest runtime.
    """
    backend.make_repeatable(1)
    side, filters = workload.SIDE, workload.FILTERS
    network = fused.build(image_size=side, filters=filters, dtype=backend.policy(precision))
    loss = epoch_loop.LossConfig(missed_weight=workload.MISSED_WEIGHT, exponent=workload.EXPONENT)
    epoch_loop.compile_model(network, loss=loss, learning_rate=workload.LEARNING_RATE)
    compiled = steps.compile_steps(network)
    images, masks = workload.batch()
    shares, chosen = (masks[..., 0] * 255).astype(np.uint8), np.arange(workload.BATCH)[None]
    runtime = _openvino_runtime(precision)

    def segment(folder: Path, out: Path) -> None:
        patients = {path.name: sorted(path.iterdir()) for path in sorted(folder.iterdir())}
        prediction.segment(runtime, patients, folder, out, post=POST, overlays=False)

    return workload.System(
        train=lambda: compiled.train(images, shares, chosen, None),
        predict=lambda: runtime.predict(images),
        segment=segment,
        parameters=network.count_params(),
    )


def _openvino_runtime(precision: str) -> runtimes.Runtime:
    """Export an untrained plain network and compile it for OpenVINO."""
    side, name = workload.SIDE, f"OpenVINO {precision}"
    plain = resunet.build(image_size=side, filters=workload.FILTERS, height=side, width=side)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.xml"
        runtimes.export(plain, path)
        predict = predictors.compile_graph(path, name)
    comparison = runtimes.Comparison(name, 0.0, 0.0, 0)
    return runtimes.Runtime(predict, comparison, plain.name, (side, side, 3))


def published_way() -> workload.System:
    """Train the plain network as the published system does: OpenCV reads and resizes the files.

    Keras's defaults apart from XLA. Each step reads its files again.
    """
    import cv2

    side = workload.SIDE
    network = resunet.build(image_size=side, filters=workload.FILTERS, height=side, width=side)
    network.compile(
        optimizer=keras.optimizers.Adam(workload.LEARNING_RATE),
        loss=FocalTversky(missed_weight=workload.MISSED_WEIGHT, exponent=workload.EXPONENT),
        jit_compile=False,  # XLA halves the speed on a CPU
    )
    folder = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, folder)
    pairs = workload.write_files(Path(folder))

    def read() -> tuple[np.ndarray, np.ndarray]:
        images = [cv2.resize(cv2.imread(str(image)), (side, side)) for image, _ in pairs]
        masks = [
            cv2.resize(cv2.imread(str(mask), cv2.IMREAD_GRAYSCALE), (side, side))
            for _, mask in pairs
        ]
        return np.stack(images), np.stack(masks)[..., None].astype(np.float32) / 255

    return workload.System(
        train=lambda: network.train_on_batch(*read()),
        predict=lambda: network.predict_on_batch(read()[0]),
        segment=lambda folder, out: workload.by_files(
            folder, out, lambda images: network.predict_on_batch(images)[..., 0]
        ),
        parameters=network.count_params(),
    )
