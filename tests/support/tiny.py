"""The smallest suite that trains, for tests of what surrounds the training."""

HEAD = """
title = "Tiny"
repetitions = 1
[data]
source = "digits"
test_fraction = 0.9
[network]
name = "resnet8"
channels = 4
width = 1.0
[pool]
members = 2
[recipe]
epochs = 1
batch_size = 32
crop_pad = 0
[students]
epochs = 1
[latency]
repeats = 3
batch_repeats = 3
batch = 4
"""
DE = '[[methods]]\nuse = "de"\nsizes = [1, 2]\n'
ED = '[[methods]]\nuse = "ed"\nsizes = [2]\n'
TS = '[[methods]]\nuse = "ts"\nsizes = [1]\n'
