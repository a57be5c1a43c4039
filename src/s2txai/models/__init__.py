"""Models: one interface (:mod:`s2txai.models.base`), one module a family.

The families are registered in :mod:`s2txai.models.families`, models are loaded by
:mod:`s2txai.models.loading`. Nothing here imports torch, since planning reads the families.
"""
