"""The methods of the suite, one file each; every file here is found by itself.

Files import torch and the core inside their functions, so that listing the methods does not wait for torch.
"""
