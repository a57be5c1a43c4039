"""The six steps: each reads artefacts, calls the science, keeps its work in the store, writes.

A step's rule, script, module here and test share a name.
"""
