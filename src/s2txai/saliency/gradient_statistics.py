# ruff: noqa
from s2txai.saliency.methods import METHODS as GRADIENTS
from s2txai.saliency.statistics import GradientStatistics, gradient_map
from s2txai.saliency.maps import cells_of
