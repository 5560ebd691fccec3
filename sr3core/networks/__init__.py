"""The U-Net of Figure A.1, its blocks and layers, and how it is run fast: precision, compilation."""
