"""Lets a torchvision built for CUDA import beside a torch built for the CPU alone.

The package index has torchvision for CUDA only. Its compiled part then cannot be loaded, the
operators ``torchvision::nms`` and ``torchvision::qnms`` stay undeclared, and the import fails,
and with it most of transformers. A ``.pth`` file in the test environment imports this module in
every process; it declares the two operators just before such a torchvision is imported, and
reads pictures with Pillow. With any other pair of builds it does nothing. Test environment only.
"""

import io
import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import Any

_KEPT: list[Any] = []


class _BesideCpuTorch(MetaPathFinder):
    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if name != "torchvision":
            return None
        spec = PathFinder.find_spec(name, path)
        if spec is None or spec.origin is None or spec.loader is None:
            return None
        version = Path(spec.origin).with_name("version.py").read_text("utf-8")
        import torch

        if "+cu" not in version or torch.version.cuda is not None:
            return None
        execute = spec.loader.exec_module

        def with_operators(module: Any) -> None:
            _declare_operators()
            execute(module)
            _read_with_pillow()

        spec.loader.exec_module = with_operators  # type: ignore[method-assign]
        return spec


def _declare_operators() -> None:
    import torch

    if _KEPT:
        return
    library = torch.library.Library("torchvision", "FRAGMENT")
    for operator in ("nms", "qnms"):
        library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

    def nms(boxes: Any, scores: Any, threshold: float) -> Any:
        left = scores.argsort(descending=True, stable=True)
        area = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1)
        kept = []
        while left.numel():
            best, left = left[0], left[1:]
            kept.append(best)
            low = torch.maximum(boxes[best, :2], boxes[left, :2])
            high = torch.minimum(boxes[best, 2:], boxes[left, 2:])
            shared = (high - low).clamp(min=0).prod(dim=1)
            left = left[shared / (area[best] + area[left] - shared) <= threshold]
        return torch.stack(kept) if kept else scores.new_zeros(0, dtype=torch.long)

    library.impl("nms", nms, "CPU")
    _KEPT.append(library)


def _read_with_pillow() -> None:
    import torch
    import torchvision.io as pictures
    from torchvision.io import image

    modes = {"GRAY": "L", "GRAY_ALPHA": "LA", "RGB": "RGB", "RGB_ALPHA": "RGBA"}

    def decode(
        data: Any, mode: Any = image.ImageReadMode.UNCHANGED, apply_exif_orientation: bool = False
    ) -> Any:
        import numpy as np
        from PIL import Image, ImageOps

        picture: Any = Image.open(io.BytesIO(data.numpy().tobytes()))
        if apply_exif_orientation:
            picture = ImageOps.exif_transpose(picture)
        name = mode.upper() if isinstance(mode, str) else mode.name
        if name in modes or picture.mode not in modes.values():
            picture = picture.convert(modes.get(name, "RGB"))
        pixels = np.atleast_3d(np.array(picture))
        return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))

    for module in (pictures, image):
        module.decode_image = decode
        module.decode_png = module.decode_jpeg = lambda data, mode="UNCHANGED", **_: decode(
            data, mode
        )
    sys.modules["torchvision.extension"]._has_ops = lambda: True


sys.meta_path.insert(0, _BesideCpuTorch())
