"""Contract tests over any registered method: ``dbn-bench check``."""
