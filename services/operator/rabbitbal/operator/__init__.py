"""The command `rabbitbal`: routes, pools, workers."""
