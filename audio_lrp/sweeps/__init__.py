"""Sweeps without an account: W&B's sweep files, run through Optuna by workers that share one storage."""
