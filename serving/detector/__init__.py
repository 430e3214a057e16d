"""The model contract: image bytes in, calibrated verdict and heatmap out. Train, evaluate and serve all call this."""
