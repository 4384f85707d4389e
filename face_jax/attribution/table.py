"""Attribution methods by name."""

from __future__ import annotations

import difflib
from types import MappingProxyType

from ..support.arguments import callable_with
from .grad_cam import GradCAM
from .gradient_times_input import GradientTimesInput
from .hsic import HSIC
from .integrated_gradients import IntegratedGradients
from .kernel_shap import KernelSHAP
from .lime import LIME
from .method import Method
from .occlusion import Occlusion
from .rise import RISE
from .saliency import Saliency
from .smooth_grad import SmoothGrad
from .sobol_regions import SobolRegions
from .upsampled import Codes

METHODS = MappingProxyType(
    {
        "codes": Codes(),
        "saliency": Saliency(),
        "gradient_times_input": GradientTimesInput(),
        "integrated_gradients": IntegratedGradients(),
        "smooth_grad": SmoothGrad(),
        "grad_cam": GradCAM(),
        "occlusion": Occlusion(),
        "rise": RISE(),
        "sobol": SobolRegions(),
        "hsic": HSIC(),
        "lime": LIME(),
        "kernel_shap": KernelSHAP(),
    }
)


class UnknownMethodError(ValueError):
    """A word that no attribution method has."""


def attribution_method(method: str | Method) -> Method:
    """The method that a word stands for, with its default settings; a method stands for itself.

    **Arguments:**

    - `method`: a word of `METHODS` (case, `-` and `_` don't matter), or an object such as `RISE(masks=4000)`.

    **Returns:** the method. Raises `UnknownMethodError` with the nearest words.

    **Example:**

    >>> fj.attribution.attribution_method("grad-cam")
    GradCAM(batch=32)
    """
    if not isinstance(method, str):
        if isinstance(method, type) or not callable(method):
            raise UnknownMethodError(
                f"method={method!r} isn't a method; give an object such as Saliency(), or one of {', '.join(METHODS)}"
            )
        callable_with(
            "method", method, "give an object such as Saliency(), or a word", 0, 1, 2,
            concepts=None, pooled=False, key=None, progress=None,
        )  # fmt: skip
        return method
    plain = {_plain(word): word for word in METHODS}
    if _plain(method) in plain:
        return METHODS[plain[_plain(method)]]
    close = [plain[near] for near in difflib.get_close_matches(_plain(method), plain, n=4, cutoff=0.5)]
    nearest = f"nearest: {', '.join(close)}; all" if close else "give one of these"
    raise UnknownMethodError(f"method={method!r} is unknown; {nearest}: {', '.join(METHODS)}; or an object")


def _plain(word: str) -> str:
    return word.strip().lower().replace("_", "").replace("-", "").replace(" ", "")
