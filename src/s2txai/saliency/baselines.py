from s2txai.saliency.occluded_values import *
