"""Files: artefacts, the store of finished work, where numbers come from."""
