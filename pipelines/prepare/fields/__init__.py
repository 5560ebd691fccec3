"""Preparing stores of arrays: from zarr, NetCDF, numpy files and rasters to shards of fields."""
