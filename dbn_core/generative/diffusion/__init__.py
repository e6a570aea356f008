"""Diffusion models for generation, one idea a file: schedules, process, losses, samplers, likelihood, distillation.

Conventions: x_t = alpha_t x_0 + sigma_t e with e standard normal; t runs from ``t_max`` (noise) to ``t_min`` (data); a
*score* is a function of x [B, ...] and times t float64 [B] that gives d log p_t / dx [B, ...].
"""
