"""The U-Net of Figure A.1, its blocks and layers, and its execution: precision, compilation."""
