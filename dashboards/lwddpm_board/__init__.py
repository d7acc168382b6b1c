"""The experiment board: what MLflow and Optuna hold, to be looked at in a browser. It keeps no store of its own."""
