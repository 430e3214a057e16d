"""Production's MLflow server: who calls, and what that account may do to runs, versions and aliases."""
