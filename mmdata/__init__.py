"""mmdata: vision-language raw material to validated interleaved shards, and training from them."""

__version__ = "0.1.0"
