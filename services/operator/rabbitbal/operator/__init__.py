"""The command of the operator: routes, pools, workers."""
