"""The format of prepared data: manifests, records, and the tars that hold them."""
