"""The diffusion process: the equations, noise schedules, Algorithm 2 and the other samplers."""
