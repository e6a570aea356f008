"""The tasks that come along, one a module; importing this registers them."""

from dbn_core.tasks import classification as classification
from dbn_core.tasks import generation as generation
from dbn_core.tasks import tabular as tabular
