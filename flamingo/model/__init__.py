"""Flamingo as published: vision tower, resampler, gated cross-attention, any transformers LM."""
