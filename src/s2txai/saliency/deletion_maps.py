from s2txai.analysis.deletion import *  # SHIM
