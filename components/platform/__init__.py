"""What stages stand on beside the artifacts: cloud storage, Google's APIs, MLflow's registry and tracking, signals."""
