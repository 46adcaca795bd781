"""Full-size JPEG files through NVIDIA DALI: decoded and resized there, augmented by `rotate_images`."""

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from prior_fast.data.batch_plan import BatchPlan, LoaderConfig
from prior_fast.data.prepared_dataset import PreparedDataset
from prior_fast.data.sources.compared import Comparison
from prior_fast.data.sources.dali import augmented, new_pipeline, require_dali, run
from prior_fast.data.sources.encoded import EncodedImages
from prior_fast.data.sources.resize import Lines, with_pillows_border


class JpegSource:
    """The full-size files that the dataset was prepared from, for experiments with decoding and resizing.

    On a GPU nvJPEG decodes, with its hardware engine if the GPU has one. A file that can't be decoded, or gives another
    image than it did when the dataset was prepared, is replaced by its prepared image and counted. data.workers is the
    number of DALI's threads.

    Raises:
        UsageError: DALI is not installed, or the folder of files is not that of this dataset.
    """

    def __init__(self, dataset: PreparedDataset, config: LoaderConfig, device: torch.device) -> None:
        require_dali()
        self.dataset, self.config, self.device = dataset, config, device
        self.compute = device
        self.encoded = EncodedImages(dataset, Path(config.data.jpegs))
        self.comparison = Comparison(self.encoded)
        self.description = f"JPEG files under {config.data.jpegs} through DALI on {device.type}"

    @property
    def replaced(self) -> int:
        """The number of images so far that were replaced by their prepared image."""
        self.comparison.count(wait=True)
        return self.encoded.replaced

    def stream(self, plans: Iterable[BatchPlan]) -> Iterator[Tensor]:
        coming, taken = iter(plans), deque[BatchPlan]()
        while True:
            try:
                yield from self._run(coming, taken)
                return
            except RuntimeError:
                # A file that DALI can't decode ends its pipeline. Find the file and continue with a new pipeline.
                rows = (int(row) for plan in taken for row in plan.image_rows)
                if not self.encoded.find_broken(rows):
                    raise
                coming, taken = chain(taken, coming), deque()

    def _run(self, coming: Iterator[BatchPlan], taken: deque[BatchPlan]) -> Iterator[Tensor]:
        """The images of the plans in `coming`. `taken` holds the plans that were read but not yet yielded."""
        first = next(coming, None)
        if first is None:
            return
        ahead = chain([first], coming)

        def read() -> tuple[list[np.ndarray], np.ndarray]:
            plan = next(ahead)
            taken.append(plan)
            return self.encoded.read(plan.image_rows), self.dataset.images[plan.image_rows]

        pipeline = new_pipeline(self.device, self.config, len(first.studies))
        with pipeline:
            pipeline.set_outputs(*self._decoded_and_resized(read))
        for outputs in run(pipeline):
            *lines, sizes, prepared = outputs
            pixels = with_pillows_border(Lines(*lines), sizes)
            plan = taken.popleft()
            pixels = self.comparison.checked(pixels, prepared, plan.image_rows)
            yield augmented(pixels, plan, self.dataset, self.config)

    def _decoded_and_resized(self, read: Any) -> list[Any]:
        """The resized image, its border lines and corners, the size of the file's image, and the prepared image."""
        from nvidia.dali import fn, types

        data, prepared = fn.external_source(source=read, num_outputs=2, batch=True)
        gpu = self.device.type == "cuda"
        device = "mixed" if gpu else "cpu"
        # `read_xray` turns images as EXIF says, and their size is that after the turn.
        pixels = fn.decoders.image(data, device=device, output_type=types.GRAY, adjust_orientation=True)
        side = self.dataset.images.shape[1]

        def resized(part: Any, height: int, width: int) -> Any:
            # Like Pillow's BILINEAR, which prepared the images: a triangle filter scaled to a pixel of the result.
            return fn.resize(part, size=(height, width), interp_type=types.INTERP_TRIANGULAR, dtype=types.FLOAT)

        top, bottom = pixels[:1], pixels[-1:]
        lines = [resized(top, 1, side), resized(bottom, 1, side)]
        lines += [resized(pixels[:, :1], side, 1), resized(pixels[:, -1:], side, 1)]
        corners = [fn.cast(part, dtype=types.FLOAT) for line in (top, bottom) for part in (line[:, :1], line[:, -1:])]
        sizes = fn.peek_image_shape(data, adjust_orientation=True)
        return [resized(pixels, side, side), *lines, *corners, sizes, prepared.gpu() if gpu else prepared]
