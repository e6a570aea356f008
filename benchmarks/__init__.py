"""The harness: suites, plan, store, execution, statistics and report."""

import baselines as baselines  # adds the methods, tasks and data sources that come with the package
