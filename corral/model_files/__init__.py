"""Files of a model as a repository has them: headers of shards, their index, config.json."""
