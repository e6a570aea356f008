"""The papers on generation: B-DENSE (arXiv 2602.15971) and ensembles of score networks (arXiv 2601.11444).

A wing of its own: nothing in ``dbn_core`` outside it imports it.  Importing it adds its tasks and data sources to the
tables.
"""

from dbn_core.data.sources import SOURCES
from dbn_core.tasks.base import TASKS

TASKS.add(
    {
        "generation": "dbn_core.generative.tasks.generation:Generation",
        "tabular": "dbn_core.generative.tasks.tabular:Tabular",
    }
)
SOURCES.add(
    {
        "mixture2d": "dbn_core.generative.points:Mixture2dSource",
        "table": "dbn_core.generative.tables:TableSource",
        "csv": "dbn_core.generative.tables:CsvSource",
    }
)
