"""The report's section on runs of fields: scores, maps, spectra and ranks."""
