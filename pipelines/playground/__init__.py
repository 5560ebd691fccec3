"""A local web page on which a trained model can be tried."""
