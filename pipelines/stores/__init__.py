"""Stores of arrays: zarr, NetCDF, numpy's files and rasters."""
