"""The tasks that come along, one a module; importing this registers them."""

from dbn_core.tasks import classification as classification
