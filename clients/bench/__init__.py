"""Benches: ours against `vllm serve` on the same engine."""
