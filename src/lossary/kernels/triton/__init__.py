"""Kernels for NVIDIA GPUs, compiled by Triton; its interpreter runs them anywhere, for tests."""
