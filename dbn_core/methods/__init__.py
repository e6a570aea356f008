"""The contract of methods: what one promises and is handed, how it is found, and what predictors are built from."""
