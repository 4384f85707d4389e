"""Where a concept is: maps on pixels."""

from .baseline import Blurred as Blurred
from .grad_cam import GradCAM as GradCAM
from .gradient import concept_gradients as concept_gradients
from .gradient import forward_with_pullback as forward_with_pullback
from .gradient_times_input import GradientTimesInput as GradientTimesInput
from .hsic import HSIC as HSIC
from .integrated_gradients import IntegratedGradients as IntegratedGradients
from .kernel_shap import KernelSHAP as KernelSHAP
from .lime import LIME as LIME
from .method import Method as Method
from .occlusion import Occlusion as Occlusion
from .rise import RISE as RISE
from .saliency import Saliency as Saliency
from .smooth_grad import SmoothGrad as SmoothGrad
from .sobol_regions import SobolRegions as SobolRegions
from .table import METHODS as METHODS
from .table import attribution_method as attribution_method
from .upsampled import Codes as Codes
from .upsampled import upsampled_codes as upsampled_codes
