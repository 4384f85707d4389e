"""Heads in JAX: what turns a layer's activations into logits."""

from .affine import Affine as Affine
from .beside import Beside as Beside
from .families import NetworkHead as NetworkHead
from .families import TokenHead as TokenHead
from .families import convnext as convnext
from .families import densenet as densenet
from .families import efficientnet as efficientnet
from .families import mobilenet_v2 as mobilenet_v2
from .families import mobilenet_v3 as mobilenet_v3
from .families import resnet as resnet
from .families import vgg as vgg
from .families import vit as vit
from .offsets import shifted as shifted
from .one_logit import OneLogit as OneLogit
from .one_logit import binary as binary
