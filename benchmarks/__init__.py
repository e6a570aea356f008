"""The harness: suites, plan, store, execution, statistics and report."""
