"""Classifiers, score networks and bridge heads."""

from dbn_core.nets.spec import NetworkSpec as NetworkSpec
