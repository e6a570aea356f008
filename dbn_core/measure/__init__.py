"""Measurements that need torch: cost, latency, the deployable form of a predictor, and the runtimes it runs in."""
