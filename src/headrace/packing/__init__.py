"""From any source to a dataset on disk: plan, shards, publish. (`headrace.pack` is the function.)"""
