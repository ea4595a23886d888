"""Samplers of |ψ|²: full summation, Metropolis chains, parallel tempering, and direct draws."""
