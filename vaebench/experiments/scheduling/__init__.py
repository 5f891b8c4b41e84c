"""Where experiments run: in processes of this machine (`engine`, `worker`) or on a dask cluster (`cluster`)."""
