"""Scores a whole catalogue: a plan of shards, one Parquet part a shard, nothing scored twice and nothing lost."""
