"""What can be saved of a shard: samples out of a damaged tar, documents out of damaged samples."""
