"""Benchmarks of training and prediction, beside PyTorch and the published way in Keras."""
